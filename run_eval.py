"""Evaluate a classifier on robustness benchmarks, alone or against a baseline on the same images.

    python run_eval.py --model outputs/model --baseline google/vit-base-patch16-224 --dataset imagenet-a objectnet
        --data_dir DIR --output_dir OUT
    accelerate launch run_eval.py flags.yaml

Writes OUT/<dataset>.json and OUT/<dataset>.predictions.parquet for each data set, OUT/results.md, and with --baseline
OUT/baseline/..., OUT/comparison.json and OUT/per_class/...; OUT/overlays/<dataset>.png shows the relevance maps.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from dataset_scripts import BENCHMARKS, imagenet_indices, load_benchmark
from dataset_scripts.image_mask_folder import load_image_mask_folder
from hf_robustvit.command_line import exit_on_user_error, parse_settings
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.evaluation.benchmark import BenchmarkData, evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import IMAGENET_CLASSES, match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.models import load_classifier
from hf_robustvit.reporting.evaluation import BASELINE_FOLDER, headline_table, write_comparison, write_report
from hf_robustvit.reporting.overlays import benchmark_overlays


@dataclass
class EvaluationArguments:
    """The flags of run_eval.py."""

    model: str = field(metadata={"help": 'Hub id, local folder, "timm/<name>" or "cutouts-vit".'})
    dataset: list[str] = field(
        metadata={
            "help": "Names of benchmarks, or folders with images/<class>/*. Groups: cutouts (the embedded benchmark), "
            "all (the ImageNet benchmarks for a model of 1000 classes, the others for any other model)."
        }
    )
    output_dir: str = field(metadata={"help": "Where results go; what is finished there is not run again."})
    baseline: str | None = field(
        default=None, metadata={"help": "A second model, to compare with on the same images."}
    )
    revision: str | None = field(default=None, metadata={"help": "Hub revision of --model."})
    baseline_revision: str | None = field(default=None, metadata={"help": "Hub revision of --baseline."})
    data_dir: str | None = field(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        metadata={"help": "Folder of the data set, or of several by their names. Default: $HF_ROBUSTVIT_DATA."},
    )
    preprocessing: Literal["checkpoint", "paper"] = field(
        default="checkpoint",
        metadata={"help": "The checkpoint's own, or the paper's: resize to 256, centre crop 224, mean and std 0.5."},
    )
    crop_border: int = field(
        default=0, metadata={"help": "Pixels cut from each side first; ObjectNet's authors cut 2, the paper 0."}
    )
    skip_unreadable: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be read, and list them, instead of stopping."}
    )
    batch_size: int = field(default=64, metadata={"help": "Images in a batch, in each process."})
    num_workers: int = field(
        default=min(8, os.cpu_count() or 1), metadata={"help": "Processes that read images, for each process."}
    )
    bf16: bool = field(default=False, metadata={"help": "Run the model in bfloat16 autocast."})


def benchmark_names(requested: list[str], num_model_classes: int) -> list[str]:
    """Replace the groups by their members, and check that every name is a benchmark or a folder."""
    groups = {
        "cutouts": [name for name in BENCHMARKS if name.startswith("cutouts-")],
        "all": [
            name
            for name, benchmark in BENCHMARKS.items()
            if (benchmark.imagenet_indices is not None) == (num_model_classes == IMAGENET_CLASSES)
        ],
    }
    names = [name for request in requested for name in groups.get(request, [request])]
    for name in names:
        if name not in BENCHMARKS and not Path(name).is_dir():
            raise unknown_name("--dataset", name, [*BENCHMARKS, *groups])
    return list(dict.fromkeys(names))


def load_data(name: str, data_dir: str | None, checkpoints: list[Checkpoint]) -> list[BenchmarkData]:
    """Load a data set and find its classes among those of each model."""
    if name in BENCHMARKS:
        rows, indices = load_benchmark(name, data_dir), imagenet_indices(name, data_dir)
    else:
        rows, indices = load_image_mask_folder(name, with_masks=False), None
        name = Path(name).resolve().name
    if "label" not in rows.column_names:
        return [BenchmarkData(name, rows, None) for _ in checkpoints]
    classes = rows.features["label"].names
    spaces = [match_classes(name, classes, indices, checkpoint.model.config) for checkpoint in checkpoints]
    return [BenchmarkData(name, rows, space) for space in spaces]


def main(arguments: EvaluationArguments) -> None:
    """Evaluate the model, and the baseline if there is one, and compare them."""
    accelerator = Accelerator()
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s")
    options = LoopOptions(arguments.batch_size, arguments.num_workers, arguments.skip_unreadable, arguments.bf16)
    output_dir = Path(arguments.output_dir)

    # The baseline comes first, and everything is loaded before anything runs: a mistake shows at once.
    models = [(arguments.model, arguments.revision, output_dir)]
    if arguments.baseline:
        models.insert(0, (arguments.baseline, arguments.baseline_revision, output_dir / BASELINE_FOLDER))
    checkpoints = [Checkpoint.of(name, revision, *load_classifier(name, revision)) for name, revision, _ in models]
    with accelerator.main_process_first():
        names = benchmark_names(arguments.dataset, checkpoints[-1].model.config.num_labels)
        data = [load_data(name, arguments.data_dir, checkpoints) for name in names]
    if len({sets[0].name for sets in data}) < len(data):
        raise UserError("--dataset: two folders have the same name, and so would their results; rename one.")

    run = {"preprocessing": arguments.preprocessing, "crop_border": arguments.crop_border}
    results = [
        [evaluate_benchmark(checkpoint, sets[position], folder, accelerator, options, **run) for sets in data]
        for position, (checkpoint, (_, _, folder)) in enumerate(zip(checkpoints, models, strict=True))
    ]
    if accelerator.is_main_process:
        differences = write_comparison(output_dir, results[1], results[0]) if arguments.baseline else []
        write_report(output_dir, results[-1], differences)
        titles = ["before", "after"] if arguments.baseline else ["model"]
        for sets in data:
            name = sets[-1].name
            picture = output_dir / "overlays" / f"{name}.png"
            newest_result = max((folder / f"{name}.json").stat().st_mtime for _, _, folder in models)
            if not picture.exists() or picture.stat().st_mtime < newest_result:
                benchmark_overlays(picture, sets[-1], dict(zip(titles, checkpoints, strict=True)), **run)
        print(headline_table(results[-1], differences))
    accelerator.end_training()  # several processes part before they exit


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(EvaluationArguments))
