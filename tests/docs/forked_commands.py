"""Runs shell commands one after the other, those of Python and hf-robustvit in copies of a process with all imported.

    python forked_commands.py commands.json

The output of command i goes to the file i.out in the current folder; the first that fails ends the run.
"""

import json
import multiprocessing
import os
import shlex
import subprocess
import sys
from pathlib import Path

from hf_robustvit.__main__ import entry
from hf_robustvit.commands import evaluate, explain, finetune, masks
from hf_robustvit.terminal import PROGRAM


IMPORTED = (evaluate, explain, finetune, masks)  # which takes six seconds each time


def run(command: str, output: str) -> None:
    """Run a command as its shell would, its output in a file."""
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    if program == PROGRAM:
        sys.argv = [program, *arguments]
        return entry()
    if program != "python":
        sys.exit(subprocess.run(["bash", "-c", command]).returncode)
    exec(arguments[arguments.index("-c") + 1], {"__name__": "__main__"})


if __name__ == "__main__":
    for number, line in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        process = multiprocessing.get_context("fork").Process(target=run, args=(line, f"{number}.out"))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{line}\n{Path(f'{number}.out').read_text()}")
