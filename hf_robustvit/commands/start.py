"""The commands, and how they are started: `hf-robustvit NAME ...`, or a run_*.py of the repository."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hf_robustvit.commands.settings import SETTINGS_FILES, exit_on_user_error, flags_of_source, parse_settings
from hf_robustvit.flags.app import DemoArguments
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.flags.experiment import ExperimentArguments
from hf_robustvit.flags.finetune import FinetuneArguments, MethodSettings
from hf_robustvit.flags.masks import OPTIONS, MaskArguments, MaskReading, QualityGate


@dataclass(frozen=True)
class Command:
    """A command with flags.

    Attributes:
        help: What it does.
        module: Its module, imported when it runs; its function `main` takes the settings.
        settings: The dataclasses of its flags.
        before: Applied to the command line before it is parsed.
    """

    help: str
    module: str
    settings: tuple[type, ...]
    before: Callable[[list[str]], list[str]] = list

    def parse(self, arguments: list[str] | None = None, prog: str | None = None) -> tuple[Any, ...]:
        """The settings that a command line asks for; see `parse_settings`."""
        arguments = self.before(sys.argv[1:] if arguments is None else arguments)
        if MethodSettings not in self.settings:
            return parse_settings(*self.settings, arguments=arguments, prog=prog, description=self.help)
        # Here, because importing `TrainingArguments` takes seconds: --help and wrong flags are answered before that.
        known = flags_of_source("transformers.training_args", "TrainingArguments")
        parse_settings(*self.settings, arguments=arguments, prog=prog, description=self.help, also=known)
        from hf_robustvit.config import RobustViTConfig

        whole = (RobustViTConfig if kind is MethodSettings else kind for kind in self.settings)
        return parse_settings(*whole, arguments=arguments, prog=prog)

    def run(self, *settings: Any) -> None:
        """Import the command and run it."""
        importlib.import_module(self.module).main(*settings)


def as_flags(arguments: list[str]) -> list[str]:
    """The command line with the flag that names of experiments, which come first, are written without."""
    has_no_names = arguments and (arguments[0].startswith("-") or arguments[0].endswith(SETTINGS_FILES))
    return list(arguments) if has_no_names else ["--names", *arguments]


COMMANDS = {
    "finetune": Command(
        "Fine-tune a model so that its relevance map lies on the object.",
        "hf_robustvit.commands.finetune",
        (FinetuneArguments, MethodSettings, QualityGate, MaskReading, *OPTIONS),
    ),
    "eval": Command(
        "Evaluate a model on robustness benchmarks or your own photos, or audit it.",
        "hf_robustvit.commands.evaluate",
        (EvaluationArguments, MaskReading, QualityGate, *OPTIONS),
    ),
    "masks": Command(
        "Make foreground masks for a folder of images.",
        "hf_robustvit.commands.masks",
        (MaskArguments, QualityGate, MaskReading, *OPTIONS),
    ),
    "experiment": Command(
        "Make the paper's tables and figures.",
        "hf_robustvit.commands.experiment",
        (ExperimentArguments, MaskReading, QualityGate, *OPTIONS),
        as_flags,
    ),
    "app": Command(
        "Compare what two models see in a picture, in a browser.", "hf_robustvit.commands.app", (DemoArguments,)
    ),
}


def start(name: str) -> None:
    """Run a command by the command line of this process; a mistake is told in a sentence."""
    with exit_on_user_error():
        COMMANDS[name].run(*COMMANDS[name].parse())
