"""What is printed when a long command is done: where everything is, and what to type next."""

import shlex
from pathlib import Path

from hf_robustvit.builders.parquet import official_name
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.flags.finetune import FinetuneArguments


TESTS = {"cutouts": "cutouts", "imagenet-s": "all"}


def after_finetuning(arguments: FinetuneArguments, config: RobustViTConfig) -> str:
    """Where the model, its card and its pictures are, and the command that evaluates it."""
    out = config.output_dir
    test = TESTS.get(official_name(arguments.dataset), "TEST_PHOTOS")
    command = ["hf-robustvit", "eval", "--model", out, "--baseline", arguments.model, "--dataset", test]
    command += ["--output_dir", f"{out}-results", "--report"]
    return (
        f"The model is in {out}, its card is {out}/README.md, and its maps before and after are {out}/relevance.png.\n"
        f"Evaluate it with: {shlex.join(command)}"
    )


def after_evaluation(arguments: EvaluationArguments) -> str:
    """Where the results and the pictures are, and the command that adds the results to the model's card."""
    out = Path(arguments.output_dir)
    lines = [f"The results are in {out / 'results.md'}, and maps on their images in {out / 'overlays'}."]
    if arguments.report:
        lines.append(f"The report is {out / 'report.html'}.")
    if Path(arguments.model, "README.md").is_file():
        lines.append(f"The model's card is {Path(arguments.model, 'README.md')}.")
        push = shlex.join(["hf-robustvit", "push", arguments.model, f"USER/{Path(arguments.model).resolve().name}"])
        if arguments.update_card:
            lines.append(f"Push the model with: {push}")
        else:
            lines.append("Add the results to it with the same command and --update_card.")
    return "\n".join(lines)
