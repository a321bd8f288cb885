"""Evaluate a classifier on robustness benchmarks, alone or against a baseline on the same images.

    python run_eval.py --model outputs/model --baseline google/vit-base-patch16-224 --dataset imagenet-a objectnet
        --data_dir DIR --output_dir OUT
    accelerate launch run_eval.py flags.yaml

Writes OUT/<dataset>.json and OUT/<dataset>.predictions.parquet for each data set, OUT/results.md, and with --baseline
OUT/baseline/..., OUT/comparison.json and OUT/per_class/...; OUT/overlays/<dataset>.png shows the relevance maps,
OUT/curves/<dataset>.png the accuracy over area, angle or place, OUT/composites/<dataset>.png some composites, and with
--report OUT/report.html is one page with everything, to open in a browser.
"""

import logging

from accelerate import Accelerator

from dataset_scripts import benchmark_names, load_benchmark_rows
from hf_robustvit.commands.evaluate import EvaluationArguments, evaluate, load_checkpoints
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings
from hf_robustvit.data import NO_FLAGS, MaskReading


def main(arguments: EvaluationArguments, reading: MaskReading = NO_FLAGS) -> None:
    """Evaluate, and print the headline table."""
    accelerator = Accelerator()
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s")
    checkpoints = load_checkpoints(arguments)
    with accelerator.main_process_first():
        names = benchmark_names(arguments.dataset, for_imagenet=checkpoints[-1].knows_imagenet)
        found = [load_benchmark_rows(name, arguments.data_dir, reading, arguments.backgrounds) for name in names]
    table = evaluate(arguments, checkpoints, found, accelerator)
    if accelerator.is_main_process:
        print(table)
    accelerator.end_training()  # several processes part before they exit


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(EvaluationArguments, MaskReading))
