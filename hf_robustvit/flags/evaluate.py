"""What is evaluated, on which data sets, and how."""

import os
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg

from hf_robustvit.flags import RelevanceMethod
from hf_robustvit.flags.masks import MADE_MASKS
from hf_robustvit.flags.text_head import TextHeadArguments


@dataclass
class EvaluationArguments(TextHeadArguments):
    """The models, the data sets they are evaluated on, and how."""

    model: str = HfArg(help='Hub id, local folder, "timm/<name>" or "cutouts-vit".')
    dataset: list[str] = HfArg(
        help="Names of benchmarks, folders with images/<class>/* or <class>/*, or data sets in Parquet: a folder or a "
        "repository on the Hub. Groups: cutouts (the embedded "
        "benchmark), composites (made of the images and masks of --data_dir), imagenet-9, shape-texture, imagenet-c, "
        "imagenet-d, all (the paper's ImageNet benchmarks for a model of its 1000 classes, the embedded one for any "
        "other model)."
    )
    output_dir: str = HfArg(help="Where results go; finished ones there are not run again.")
    baseline: str | None = HfArg(default=None, help="A second model, to compare with on the same images.")
    revision: str | None = HfArg(default=None, help="Hub revision of --model.")
    baseline_revision: str | None = HfArg(default=None, help="Hub revision of --baseline.")
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Folder of the data set, or of several by their names. Default: $HF_ROBUSTVIT_DATA.",
    )
    streaming: bool = HfArg(
        default=False, help="Keep a data set in Parquet in memory, and write nothing to the cache of datasets."
    )
    backgrounds: str | None = HfArg(
        default=None, help="Folder of images that composites put objects on. Default: the other photos of --data_dir."
    )
    preprocessing: Literal["checkpoint", "paper"] = HfArg(
        default="checkpoint",
        help="The checkpoint's own, or the paper's: resize to 256, centre crop 224, mean and std 0.5.",
    )
    crop_border: int = HfArg(default=0, help="Pixels cut from each side first (ObjectNet's authors: 2, paper: 0).")
    relevance_method: RelevanceMethod = HfArg(
        default="gae",
        help="Rule that makes the maps that are measured and shown: gae (the paper's), libra, rollout or occlusion.",
    )
    input_size: int | None = HfArg(
        default=None,
        help="Height and width of the models' input in pixels, with interpolated position embeddings. Default: the "
        "checkpoint's.",
    )
    skip_unreadable: bool = HfArg(
        default=False, help="Leave out unreadable images and list them, instead of stopping."
    )
    oracle: bool = HfArg(
        default=False,
        help="On sets with masks, also measure what a perfect map could gain: accuracy when what the head reads is "
        "forbidden to attend to the background.",
    )
    faithfulness: bool = HfArg(
        default=False,
        help="On sets with masks, also judge maps by occlusion and SaCo, and the model by noise on the object and "
        "around it; takes about four times as long.",
    )
    audit: bool = HfArg(
        default=False,
        help="Instead, judge whether the model decides by the background: audit.html and audit.json, on one folder "
        "of photos, or one data set, with masks.",
    )
    masks: str | None = HfArg(
        default=None,
        help=f"For --audit: a folder of masks, or what makes them ({', '.join(MADE_MASKS)}). Default: the data set's.",
    )
    report: bool = HfArg(default=False, help="Also write report.html: one page with everything, to open in a browser.")
    batch_size: int = HfArg(default=64, help="Images in a batch, in each process.")
    num_workers: int = HfArg(default=min(8, os.cpu_count() or 1), help="Processes that read images, for each process.")
    bf16: bool = HfArg(default=False, help="Run the model in bfloat16 autocast.")
    update_card: bool = HfArg(default=False, help="Add the results to the card of --model, which is a local folder.")
    push_to_hub: bool = HfArg(default=False, help="Add the results to the card of --model, which is then a Hub id.")
