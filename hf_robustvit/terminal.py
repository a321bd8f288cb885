"""What a person reads while a command runs and when it ends: how far it is, and what to type next."""

import contextlib
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm


logger = logging.getLogger(__name__)

PROGRAM = "hf-robustvit"


def has_terminal() -> bool:
    """Whether what is reported goes to a terminal or a notebook; in a file, a progress bar is of no use."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def log_tenth(what: str, done: int, total: int, began: float, first: int = 0) -> None:
    """Log how far some work is and the time that is left, when another tenth of it is done.

    Args:
        what: What is counted.
        done: How many of them are done, this one included.
        total: How many there are.
        began: The time when the work began, as `time.monotonic` gave it.
        first: How many were done before that.
    """
    if 10 * done // total > 10 * (done - 1) // total:
        left = timedelta(seconds=round((time.monotonic() - began) / (done - first) * (total - done)))
        logger.info("%s %d of %d (%d %%), about %s left.", what, done, total, 100 * done // total, left)


def progress(items: Iterable[Any], what: str, unit: str, shown: bool = True) -> Iterator[Any]:
    """Go through some items under a progress bar; without a terminal, log every tenth of them.

    Args:
        items: They have a length.
        what: The work that is done on them.
        unit: What one item is called.
        shown: Off in all processes but one.
    """
    if has_terminal() or not shown:
        yield from tqdm(items, desc=what, unit=unit, disable=not shown)
        return
    began = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        log_tenth(f"{what}: {unit}", done, len(items), began)


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Log nothing less than warnings inside the block, which tries what nobody waits to read about."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def command_line(name: str, *arguments: Any) -> str:
    """Another command, to be typed as the one that runs was: `hf-robustvit eval ...`, or `python run_eval.py ...`.

    Args:
        name: The command.
        arguments: What follows it; quoted where a shell needs that.
    """
    started = Path(sys.argv[0])
    script = started.with_name(f"run_{name}.py")
    if started.name == PROGRAM:
        words = [PROGRAM if shutil.which(PROGRAM) else started, name]
    elif started.name.startswith("run_") and script.is_file():
        words = [sys.orig_argv[0], script]
    else:
        words = [sys.orig_argv[0], "-m", "hf_robustvit", name]
    return shlex.join(map(str, [*words, *arguments]))
