"""Evaluate a classifier on robustness benchmarks, alone or against a baseline on the same images.

    python run_eval.py --model outputs/model --baseline google/vit-base-patch16-224 --dataset imagenet-a objectnet
        --data_dir DIR --output_dir OUT
    accelerate launch run_eval.py flags.yaml

Writes OUT/<dataset>.json and OUT/<dataset>.predictions.parquet for each data set, OUT/results.md, and with --baseline
OUT/baseline/..., OUT/comparison.json and OUT/per_class/...; OUT/overlays/<dataset>.png shows the relevance maps, and
with --report OUT/report.html is one page with everything, to open in a browser.
"""

import logging
from pathlib import Path

from accelerate import Accelerator
from transformers import PretrainedConfig

from dataset_scripts import BENCHMARKS
from dataset_scripts.benchmark_data import load_data
from hf_robustvit.commands.evaluate import EvaluationArguments, evaluate
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.labels import imagenet_classes
from hf_robustvit.errors import unknown_name
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.run import BenchmarkData


logger = logging.getLogger(__name__)


def benchmark_names(requested: list[str], config: PretrainedConfig) -> list[str]:
    """Replace the groups by their members, and check that every name is a benchmark or a folder."""
    groups = {
        "cutouts": [name for name in BENCHMARKS if name.startswith("cutouts-")],
        "all": [
            name
            for name, benchmark in BENCHMARKS.items()
            if (benchmark.imagenet_indices is not None) == (imagenet_classes(config) is not None)
        ],
    }
    names = [name for request in requested for name in groups.get(request, [request])]
    for name in names:
        if name not in BENCHMARKS and not Path(name).is_dir():
            raise unknown_name("--dataset", name, [*BENCHMARKS, *groups])
    return list(dict.fromkeys(names))


def main(arguments: EvaluationArguments, reading: MaskReading = NO_FLAGS) -> None:
    """Evaluate, and print the headline table."""
    accelerator = Accelerator()
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s")

    def load_all(checkpoints: list[Checkpoint]) -> list[list[BenchmarkData]]:
        names = benchmark_names(arguments.dataset, checkpoints[-1].model.config)
        return [load_data(name, arguments.data_dir, checkpoints, reading) for name in names]

    table = evaluate(arguments, load_all, accelerator)
    if accelerator.is_main_process:
        print(table)
    accelerator.end_training()  # several processes part before they exit


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(EvaluationArguments, MaskReading))
