"""Which data set is converted to Parquet, and where it goes."""

import os
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg


@dataclass
class ConversionArguments:
    """A data set as its authors ship it, and where it goes."""

    dataset: str | None = HfArg(default=None, help="Which of the script's data sets, where it has several.")
    split: Literal["train", "test"] | None = HfArg(
        default=None,
        help="train: what run_finetune.py takes; test: what run_eval.py takes. Default: train where the set has both.",
    )
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Folder of the data set, or of several by their names. Default: $HF_ROBUSTVIT_DATA.",
    )
    images_dir: str | None = HfArg(default=None, help="The images, if not beside the masks: ImageNet's train folder.")
    ignore_unlabelled: bool = HfArg(default=False, help="ImageNet-S: also write which pixels are left open.")
    output: str | None = HfArg(default=None, help="Folder for the Parquet files.")
    push_to_hub: str | None = HfArg(default=None, help="Repository of the Hub for the Parquet files, <user>/<name>.")
    private: bool = HfArg(default=True, help="Whether a new repository is private: most licences forbid passing on.")
    skip_unreadable: bool = HfArg(default=False, help="Leave out broken images and masks instead of stopping.")
