"""Files that are written whole or not at all, and names that several rooms know."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
