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
from hf_robustvit.models.files import read_model_config


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
        return self._complete(self._parse_at_once(arguments, prog), arguments, prog)

    def start(self, arguments: list[str] | None = None, prog: str | None = None) -> None:
        """Run the command by a command line; models and experiments that there are not are refused at once."""
        settings = self._parse_at_once(arguments, prog)
        _check_names(settings[0])
        self.run(*self._complete(settings, arguments, prog))

    def _parse_at_once(self, arguments: list[str] | None, prog: str | None) -> tuple[Any, ...]:
        """What `parse` gives, but for `TrainingArguments`, whose import takes seconds: those flags are known alone."""
        arguments = self.before(sys.argv[1:] if arguments is None else arguments)
        known = {}
        if MethodSettings in self.settings:
            known = flags_of_source("transformers.training_args", "TrainingArguments")
        return parse_settings(*self.settings, arguments=arguments, prog=prog, description=self.help, also=known)

    def _complete(self, settings: tuple[Any, ...], arguments: list[str] | None, prog: str | None) -> tuple[Any, ...]:
        """These settings, parsed once more where `TrainingArguments` belong to them."""
        if MethodSettings not in self.settings:
            return settings
        from hf_robustvit.config import RobustViTConfig

        whole = (RobustViTConfig if kind is MethodSettings else kind for kind in self.settings)
        return parse_settings(*whole, arguments=arguments, prog=prog)

    def run(self, *settings: Any) -> None:
        """Import the command and run it."""
        importlib.import_module(self.module).main(*settings)


def _check_names(arguments: Any) -> None:
    """Refuse models and experiments that there are not, before libraries are imported that take seconds."""
    for flag, revision in (("model", "revision"), ("baseline", "baseline_revision")):
        if name := getattr(arguments, flag, None):
            read_model_config(name, getattr(arguments, revision, None))
    if isinstance(arguments, ExperimentArguments):
        arguments.chosen()


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
        COMMANDS[name].start()
