"""Shared by the scripts: settings from flags and files, and mistakes reported in one sentence."""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import yaml
from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg

from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.models.zero_shot import read_class_names


SETTINGS_FILES = (".yaml", ".yml", ".json")


@dataclasses.dataclass(kw_only=True)
class TextHeadArguments:
    """What a CLIP-type model classifies by."""

    class_names: str | None = HfArg(
        default=None,
        help="Text file of a CLIP-type model's classes, one on each line. Default: those that it was fine-tuned with, "
        "else those of the data (ImageNet's for its wnids and sets).",
    )
    prompt_template: str | None = HfArg(
        default=None, help='What a CLIP-type model reads for a class. Default: as fine-tuned, or "a photo of a {}."'
    )

    def text_head(self) -> dict[str, Any]:
        """The arguments of `load_classifier` that these stand for.

        Raises:
            UserError: The file of names cannot be used.
        """
        names = read_class_names(self.class_names) if self.class_names else None
        return {"class_names": names, "prompt_template": self.prompt_template}


def parse_settings(*dataclass_types: type, arguments: list[str] | None = None) -> tuple[Any, ...]:
    """Fill dataclasses from the command line, which may begin with a YAML or JSON file of flags.

    Flags that follow the file win over it: `run_finetune.py settings.yaml --learning_rate 1e-5`.

    Args:
        dataclass_types: The dataclasses, whose fields are the flags.
        arguments: What was written after the script's name; that of this process if left out.

    Raises:
        UserError: A flag is unknown, the file cannot be read, or values do not fit together.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0].endswith(SETTINGS_FILES):
        arguments = _flags_of_file(Path(arguments[0])) + arguments[1:]
    parser = HfArgumentParser(dataclass_types)
    try:
        *settings, rest = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    except ValueError as error:
        raise UserError(f"The settings do not go together: {error}") from error
    if rest:
        known = [f"--{field.name}" for kind in dataclass_types for field in dataclasses.fields(kind) if field.init]
        raise unknown_name("flags", rest[0], known)
    return tuple(settings)


def _flags_of_file(path: Path) -> list[str]:
    """The flags that a file of settings stands for; as flags, so that every value is converted in one way."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: the file of settings cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: a file of settings has lines `flag: value`, found {type(settings).__name__}.")
    flags = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            flags += [f"--{name}", *map(str, values)]
    return flags


def check_output_dir(output_dir: str | Path) -> None:
    """Check that files can be written to a folder, or where it would be made; nothing is left there.

    Raises:
        UserError: They cannot.
    """
    path = Path(output_dir).absolute()
    try:
        nearest = next(folder for folder in (path, *path.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(
            f"--output_dir {output_dir} cannot be written to ({error.strerror}): name another folder."
        ) from error


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` inside the block into its sentence on standard error and exit status 2; Ctrl-C into 130."""
    try:
        yield
    except OSError as error:
        cache = str(datasets.config.HF_DATASETS_CACHE)
        if not str(error.filename).startswith(cache):
            raise
        sys.stderr.write(
            f"error: The cache of datasets, {cache}, cannot be written to ({error.strerror}): set HF_DATASETS_CACHE "
            "to a folder that can.\n"
        )
        raise SystemExit(2) from error
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as interruption:
        sys.stderr.write(f"\n{str(interruption) or 'Stopped.'}\n")
        raise SystemExit(getattr(interruption, "exit_status", 130)) from interruption
