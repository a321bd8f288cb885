"""Files that are written whole or not at all, folders that one run alone writes to, and names of files."""

import contextlib
import errno
import functools
import json
import math
import os
import reprlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

import yaml
from filelock import FileLock, Timeout

from hf_robustvit.errors import UserError


# A fine-tuned model's card, the results of its evaluations, and those that the Hub's leaderboards read.
CARD, RESULTS, EVAL_RESULTS = "README.md", "results", ".eval_results"
CLAIM = ".claim.lock"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_full(error: Exception) -> bool:
    """Whether an error means a full disk or quota; each library that writes has its own kind."""
    return any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON in UTF-8, or has a whole number that is larger than any float.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole_number(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError(f"{reprlib.repr(digits)} is too large a number")
    return int(digits)


def read_yaml(path: str | os.PathLike) -> tuple[Any, yaml.Node | None]:
    """The content of a YAML file, and the nodes it was made of.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not YAML in UTF-8, or has aliases, which let a small file stand for one without end.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        loader = _LoaderWithoutAliases(text)
        node = loader.get_single_node()
        return (loader.construct_document(node) if node else None), node
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"line {error.problem_mark.line + 1}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


class _LoaderWithoutAliases(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise ValueError(f"line {line}: write the value itself instead of an alias")
        return super().compose_node(parent, index)


def refuse_other_types(content: Any, kind: type) -> None:
    """Refuse JSON that cannot be a dataclass; keys that are missing or that it does not know are left to the caller.

    Raises:
        ValueError: It is no object, or a value is not of its field's type.
    """
    from huggingface_hub.dataclasses import validate_typed_dict
    from huggingface_hub.errors import StrictDataclassError

    if not isinstance(content, dict):
        raise ValueError(f"it is {reprlib.repr(content)}")
    for name, schema in _schemas(kind).items():
        if name in content:
            try:
                validate_typed_dict(schema, {name: content[name]})
            except StrictDataclassError as error:
                raise ValueError(f"its {name} is {reprlib.repr(content[name])}") from error


@functools.cache
def _schemas(kind: type) -> dict[str, type]:
    """A TypedDict for each field of a dataclass."""
    return {field.name: TypedDict("Field", {field.name: field.type}) for field in fields(kind)}


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Claim a run's folder while the block runs.

    The claim is the operating system's lock (flock) on a file in the folder, which ends with the process that holds
    it, however that ends. The file itself stays and means nothing. For processes on several machines the shared file
    system must pass locks on: NFS 4 and most cluster file systems do; where one is mounted with locks of the single
    machine only (NFS `nolock`, Lustre `localflock`), let processes of one machine work on a folder.

    Args:
        folder: The run's folder; made if it is missing.

    Yields:
        Whether the folder is this process's. If not, another one works on it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / CLAIM, timeout=0)
    with contextlib.suppress(Timeout):
        lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextlib.contextmanager
def sole_run(output_dir: str | Path, is_main_process: bool) -> Iterator[None]:
    """Claim an output folder while the block runs, in the main process for all of the run's.

    Raises:
        UserError: Another run writes there.
    """
    if not is_main_process:
        yield
        return
    folder = Path(output_dir)
    is_new = not folder.exists()
    with claim(folder) as is_ours:
        if not is_ours:
            raise UserError(
                f"--output_dir {output_dir}: another run is writing there now: wait until it has ended, or name "
                "another folder."
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # on Windows, a file that is open stays
                (folder / CLAIM).unlink()
                if is_new:  # and empty, after a mistake
                    folder.rmdir()
