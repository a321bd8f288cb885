"""Evaluate a classifier on robustness benchmarks, alone or against a baseline on the same images.

    python run_eval.py --model outputs/model --baseline google/vit-base-patch16-224 --dataset imagenet-a objectnet
        --data_dir DIR --output_dir OUT

Writes OUT/<dataset>.json and OUT/<dataset>.predictions.parquet for each data set, OUT/results.md, pictures, and with
--baseline a comparison. --report adds OUT/report.html; --audit asks whether the model decides by the background.
"""

from hf_robustvit.commands.start import COMMANDS, start
from hf_robustvit.flags.evaluate import EvaluationArguments


__all__ = ["EvaluationArguments", "main"]

main = COMMANDS["eval"].run

if __name__ == "__main__":
    start("eval")
