"""A script's `main` in a forked process, which may be killed or signalled on its way without harm to the tests."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hf_robustvit.commands import finetune
from hf_robustvit.commands.settings import exit_on_user_error


IMPORTED = (finetune,)  # once, and not in each of the processes


def run_forked(
    main: Callable[[], None], arguments: list, log: Path, prepare: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Run `main` with the arguments of a command line.

    Args:
        main: The script's.
        arguments: What would follow the script's name.
        log: Where standard output and standard error go.
        prepare: Called in the new process first.

    Returns:
        The exit status, negative for a signal that killed the process; and what was written.
    """
    process = multiprocessing.get_context("fork").Process(target=_child, args=(main, arguments, log, prepare))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode, log.read_text()


def _child(main: Callable[[], None], arguments: list, log: Path, prepare: Callable[[], None]) -> None:
    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    logging.getLogger().handlers.clear()  # pytest's, which would keep the script from adding its own
    sys.argv = ["script", *map(str, arguments)]
    prepare()
    with exit_on_user_error():
        main()
