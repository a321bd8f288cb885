"""Evaluate a classifier on robustness benchmarks, alone or against a baseline on the same images.

    python run_eval.py --model outputs/model --baseline google/vit-base-patch16-224 --dataset imagenet-a objectnet
        --data_dir DIR --output_dir OUT

Writes OUT/<dataset>.json and OUT/<dataset>.predictions.parquet for each data set, OUT/results.md, pictures, and with
--baseline a comparison. --report adds OUT/report.html; --audit asks whether the model decides by the background.
"""

import logging

from accelerate import Accelerator

from hf_robustvit.builders import benchmark_names, load_benchmark_rows
from hf_robustvit.builders.suite_folder import load_audited
from hf_robustvit.commands.audit import audit
from hf_robustvit.commands.evaluate import EvaluationArguments, evaluate, load_checkpoints
from hf_robustvit.commands.settings import exit_on_user_error, parse_settings
from hf_robustvit.data import NO_FLAGS, MaskReading


def main(arguments: EvaluationArguments, reading: MaskReading = NO_FLAGS) -> None:
    """Evaluate or audit, and print the headline table or the verdict."""
    accelerator = Accelerator()
    logging.basicConfig(level=logging.INFO if accelerator.is_main_process else logging.ERROR, format="%(message)s")
    checkpoints = load_checkpoints(arguments)
    usual, audited = (evaluate, load_benchmark_rows, arguments.backgrounds), (audit, load_audited, arguments.masks)
    judge, load, pictures = audited if arguments.audit else usual
    with accelerator.main_process_first():
        names = benchmark_names(arguments.dataset, for_imagenet=checkpoints[-1].knows_imagenet)
        found = [load(name, arguments.data_dir, reading, pictures) for name in names]
    summary = judge(arguments, checkpoints, found, accelerator)
    if accelerator.is_main_process:
        print(summary)
    accelerator.end_training()  # several processes part before they exit


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(EvaluationArguments, MaskReading))
