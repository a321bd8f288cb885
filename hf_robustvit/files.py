"""Files that are written whole or not at all, and names that several rooms know."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


# A fine-tuned model's card, the results of its evaluations, and those that the Hub's leaderboards read.
CARD, RESULTS, EVAL_RESULTS = "README.md", "results", ".eval_results"


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


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file or none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
