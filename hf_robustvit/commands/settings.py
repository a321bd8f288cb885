"""Shared by the commands: settings from flags and files, and mistakes reported in one sentence."""

import ast
import contextlib
import dataclasses
import importlib.util
import json
import logging
import sys
import tempfile
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.files import is_full, read_yaml
from hf_robustvit.terminal import has_terminal


SETTINGS_FILES = (".yaml", ".yml", ".json")


def parse_settings(
    *dataclass_types: type,
    arguments: list[str] | None = None,
    prog: str | None = None,
    description: str | None = None,
    also: Mapping[str, str] = {},
) -> tuple[Any, ...]:
    """Fill dataclasses from the command line, which may begin with a YAML or JSON file of flags.

    Flags that follow the file win over it: `run_finetune.py settings.yaml --learning_rate 1e-5`.

    Args:
        dataclass_types: The dataclasses, whose fields are the flags.
        arguments: What was written after the command's name; that of this process if left out.
        prog: What --help calls the command; the script's name if left out.
        description: What --help says of it.
        also: Further flags that are known, with their help; what they are set to is not looked at.

    Raises:
        UserError: A flag is unknown, the file cannot be read, or values do not fit together.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0].endswith(SETTINGS_FILES):
        arguments = _flags_of_file(Path(arguments[0])) + arguments[1:]
    flags = [field for kind in dataclass_types for field in dataclasses.fields(kind) if field.init]
    needed = [field.name for field in flags if field.default is field.default_factory is dataclasses.MISSING]
    usage = " ".join(["%(prog)s [FLAGS.yaml]", *(f"--{name} {name.upper()}" for name in needed), "[FLAGS]"])
    parser = HfArgumentParser(dataclass_types, prog=prog, usage=usage, description=description)
    parser.set_defaults(**dict.fromkeys(needed, SUPPRESS))  # or --help gives them the default None
    known = [f"--{field.name}" for field in flags]
    further = [f"--{name}" for name in also if f"--{name}" not in known]
    group = parser.add_argument_group("more of transformers' TrainingArguments") if further else None
    for flag in further:
        names = dict.fromkeys((flag, "--" + flag[2:].replace("_", "-")))
        group.add_argument(*names, nargs="*", default=SUPPRESS, help=also[flag[2:]].replace("%", "%%"))
    try:
        *settings, rest = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)
    except ValueError as error:
        raise UserError(f"The settings do not go together: {error}") from error
    if rest:
        raise unknown_name("flags", rest[0], known + further)
    return tuple(settings[: len(dataclass_types)])


def flags_of_source(module: str, dataclass_name: str) -> dict[str, str]:
    """The flags that a dataclass has, with their help, as its module's source has them: importing it takes seconds.

    Args:
        module: Its full name.
        dataclass_name: Name of the dataclass.
    """
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    (found,) = (node for node in ast.parse(source).body if getattr(node, "name", None) == dataclass_name)
    flags = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
            texts = {
                ast.literal_eval(key): value
                for pairs in ast.walk(node)
                if isinstance(pairs, ast.Dict)
                for key, value in zip(pairs.keys, pairs.values, strict=True)
            }
            help_text = texts.get("help")
            flags[node.target.id] = help_text.value if isinstance(help_text, ast.Constant) else ""
    return flags


def _flags_of_file(path: Path) -> list[str]:
    """The flags that a file of settings stands for; as flags, so that every value is converted in one way."""
    try:
        settings, _ = read_yaml(path)  # JSON is YAML
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the file of settings cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: a file of settings has lines `flag: value`, found {type(settings).__name__}.")
    flags = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            flags += [f"--{name}", *map(str, values)]
    return flags


def check_output_dir(output_dir: str | Path, flag: str = "output_dir") -> None:
    """Check that files can be written to a folder, or where it would be made; nothing is left there.

    Args:
        output_dir: The folder.
        flag: That named it.

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
            f"--{flag} {output_dir} cannot be written to ({error.strerror}): name another folder."
        ) from error


def start_log(speaks: bool = True) -> None:
    """Log plain sentences, and without a terminal show no progress bars of other libraries.

    Args:
        speaks: Off in all processes but one, which log errors alone.
    """
    logging.basicConfig(level=logging.INFO if speaks else logging.ERROR, format="%(message)s")
    for library in ("httpx", "httpx2"):  # they log every request to the Hub
        logging.getLogger(library).setLevel(logging.WARNING)
    if not has_terminal():
        import datasets
        import transformers

        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` inside the block into its sentence on standard error and exit status 2; Ctrl-C into 130."""
    try:
        yield
    except OSError as error:
        sys.stderr.write(f"error: {_what_cannot_be_written(error)}\n")
        raise SystemExit(2) from error
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt as interruption:
        sys.stderr.write(f"\n{str(interruption) or 'Stopped.'}\n")
        raise SystemExit(getattr(interruption, "exit_status", 130)) from interruption


def _what_cannot_be_written(error: OSError) -> str:
    """The sentence for a folder that is full, or for a cache that cannot be written to; other errors are raised."""
    import datasets

    cache = str(datasets.config.HF_DATASETS_CACHE)
    if str(error.filename).startswith(cache):
        return (
            f"The cache of datasets, {cache}, cannot be written to ({error.strerror}): set HF_DATASETS_CACHE to a "
            "folder that can."
        )
    if is_full(error):
        return (
            f"{error.filename or 'A file'} could not be written ({error.strerror or error}): make room, and start the "
            "same command again, which keeps what was finished."
        )
    raise error
