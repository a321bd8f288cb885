"""Runs that are killed and started again: `python -m benchmarks.kill_points [--points 30]`.

run_masks.py on a dozen images, and two experiments on the tests' smallest suite, are killed before changes of their
output folder that are drawn at random, half of them with the last file half written, and started again; what they
leave is compared with an undisturbed run, file by file. tests/test_kill_points.py does a few.
"""

import argparse
import sys
import tempfile
from pathlib import Path


sys.path.append(str(Path(__file__).parents[1] / "tests"))

import conftest  # noqa: F401 (offline, one thread, caches of its own)
from kill_points import KillTest, experiments_command, masks_command

from benchmarks.common import write_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=30, help="Of each command.")
    arguments = parser.parse_args()
    lines = ["| command | changes | killed | half written | equal |", "|---|---|---|---|---|"]
    for name, command in {"run_masks.py": masks_command, "run_experiment.py": experiments_command}.items():
        with tempfile.TemporaryDirectory() as folder:
            test = KillTest(command(Path(folder)), Path(folder))
            found = []
            for seed in range(arguments.points):
                found.append(test.differences(seed))
                print(name, seed, *found[-1], flush=True)
        halves, equal = sum(half for _, half, _ in found), sum(not different for *_, different in found)
        lines.append(f"| {name} | {test.changes} | {len(found)} | {halves} | {equal} |")
    write_section(
        "Killed and started again", [f"`python -m benchmarks.kill_points --points {arguments.points}`", "", *lines]
    )


if __name__ == "__main__":
    main()
