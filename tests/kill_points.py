"""run_masks.py and experiments in processes that are killed at one of their changes of the output folder.

A change is what Python's audit hooks see: a file that is opened for writing, or a name that comes, moves or goes. Its
number means the same in every run, as a moment in time does not.
"""

import json
import os
import random
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from forked import run_forked
from mask_images import photograph, save_backbone
from PIL import Image
from tiny_suite import open_workshop, save_suite

from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.experiments.pages import make_experiments, show_experiments
from hf_robustvit.experiments.recipes import ORIGINAL, OURS, OURS_UNANNOTATED


# The lock, and the Trainer's log and pickle of where and when it ran; keys of JSON files that tell how long it took.
PASSING = (".claim.lock", "trainer_state.json", "training_args.bin")
TIMES = r"made|.*_(runtime|time|per_second)"


class Command(NamedTuple):
    """Something to run: `arguments(out)` are those of its command line."""

    main: Callable[[], Any]
    arguments: Callable[[Path], list]


def masks_command(folder: Path) -> Command:
    """run_masks.py on a dozen images, of which some masks are rejected."""
    (folder / "images/a").mkdir(parents=True)
    for number in range(12):
        size = (80, 60) if number % 3 else (60 + number, 90)
        photograph(number, size)[0].save(folder / "images/a" / f"{number}.png")
    flags = ["--images", folder / "images", "--backbone", save_backbone(folder / "backbone"), "--image_size", 160]
    flags += ["--batch_size", 4, "--min_eigen_gap", 0, "--min_agreement", 0.85]
    command = COMMANDS["masks"]
    return Command(lambda: command.run(*command.parse()), lambda out: [*flags, "--output_dir", out])


def experiments_command(folder: Path) -> Command:
    """Two experiments on a tiny suite: masks that are made, an interpolation, and the original."""
    suite = save_suite(folder)
    recipes = [ORIGINAL, OURS_UNANNOTATED, replace(OURS, label="Half-way", share=0.5)]
    chosen = {"table3": EXPERIMENTS["table3"]}
    chosen["table1"] = replace(EXPERIMENTS["table1"], recipes=lambda suite: recipes)

    def main() -> None:
        workshop = open_workshop(folder, suite, Path(sys.argv[1]))
        make_experiments(chosen, workshop)
        list(show_experiments(chosen, workshop))

    return Command(main, lambda out: [out])


def count_changes(out: Path, act: Callable[[int], None]) -> None:
    """Call `act` with the number of each change of a folder, from 1, before it happens."""
    number, is_acting = 0, False

    def hook(event: str, arguments: tuple) -> None:
        nonlocal number, is_acting
        if is_acting or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            return
        path, folder = arguments[0], arguments[-1]
        if event == "open" and not (isinstance(path, str | os.PathLike) and folder & (os.O_WRONLY | os.O_RDWR)):
            return
        is_acting = True
        if event != "open" and folder != -1:  # of a file descriptor, as shutil.rmtree names things
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        if Path(path).is_relative_to(out):
            number += 1
            act(number)
        is_acting = False

    sys.addaudithook(hook)


def kill_at(out: Path, number: int, halves: bool) -> Callable[[], None]:
    """Prepare a process that is killed before a change.

    Args:
        out: The folder.
        number: Of the change.
        halves: Whether the file that was written since the change before is left half written.
    """
    before: dict[Path, tuple] = {}

    def act(now: int) -> None:
        if halves and now == number - 1:
            before.update(written(out))
        if now == number:
            new = {path: state for path, state in written(out).items() if state not in before.values()}
            if before and new:
                path = max(new, key=new.get)
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: count_changes(out, act)


def written(out: Path) -> dict[Path, tuple[int, int, int]]:
    """When each file was written last, its inode and size; a file that merely moved is found again."""
    states = {path: path.stat() for path in out.rglob("*") if path.is_file()}
    return {path: (state.st_mtime_ns, state.st_ino, state.st_size) for path, state in states.items()}


class KillTest:
    """A command, how many changes it makes, and what it leaves when nothing disturbs it."""

    def __init__(self, command: Command, folder: Path):
        self.command, self.folder = command, folder
        counter = folder / "changes"
        out = folder / "undisturbed"
        self.run(out, 0, lambda: count_changes(out, lambda number: counter.write_text(str(number))))
        self.changes, self.outcome = int(counter.read_text()), outcome(out)

    def run(self, out: Path, status: int, prepare: Callable[[], None] = lambda: None) -> None:
        found, log = run_forked(self.command.main, self.command.arguments(out), self.folder / "log", prepare)
        assert found == status, log

    def differences(self, seed: int) -> tuple[int, bool, list[str]]:
        """Kill it at a change drawn at random, start it again, and compare.

        Returns:
            The change's number, whether a file was left half written, and the files that differ.
        """
        draw = random.Random(seed)
        number, halves = draw.randint(1, self.changes), draw.random() < 0.5
        out = self.folder / f"killed-{seed}"
        self.run(out, -signal.SIGKILL, kill_at(out, number, halves))
        self.run(out, 0)
        found = outcome(out)
        return (
            number,
            halves,
            sorted(name for name in found.keys() | self.outcome.keys() if found.get(name) != self.outcome.get(name)),
        )


def outcome(out: Path) -> dict[str, Any]:
    """What a run leaves, by file, without hidden files, which nobody reads: pixels, JSON without times, else bytes."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file() and not path.name.startswith(".") and path.name not in PASSING:
            if path.suffix == ".json":
                content = json.loads(path.read_text(), object_hook=without_times)
            elif path.suffix == ".png":
                with Image.open(path) as picture:
                    content = np.asarray(picture).tobytes(), picture.info.get("hf_robustvit")
            else:
                content = path.read_bytes()
            found[path.relative_to(out).as_posix()] = content
    return found


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if not re.fullmatch(TIMES, key)}
