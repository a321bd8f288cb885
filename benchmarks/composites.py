"""How fast composites are rendered.

    python -m benchmarks.composites --data_dir DIR [--backgrounds DIR] [--objects 60] [--size 224]

DIR is a folder of photographs with masks. Each set is rendered from its first objects, in process time on one thread,
files read from the disk and nothing kept from another set; wanted are 300 images a second.
"""

import argparse
import time

import torch

from benchmarks.common import machine, write_section
from hf_robustvit.builders.composites import load_composites
from hf_robustvit.data.composites import FACTORS
from hf_robustvit.data.pairs import undecoded


def rate(factor: str, arguments: argparse.Namespace, backgrounds: str | None) -> float:
    """Images a second."""
    found = load_composites(f"composites-{factor}", arguments.data_dir, backgrounds)
    objects = set(found.rows.unique("object")[: arguments.objects])
    chosen = [position for position, name in enumerate(found.rows["object"]) if name in objects]
    rows = list(undecoded(found.rows.select(chosen)))
    start = time.process_time()
    for row in rows:
        found.render(row, (arguments.size, arguments.size))
    return len(rows) / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--backgrounds")
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    kinds = {"the other photos, their objects removed": None}
    if arguments.backgrounds:
        kinds = {"a folder of backgrounds": arguments.backgrounds} | kinds
    lines = [
        f"{arguments.objects} objects at {arguments.size} pixels, images/s in process time on one thread. {machine()}",
        "",
        f"| backgrounds | {' | '.join(FACTORS)} |",
        f"|---|{'---|' * len(FACTORS)}",
    ]
    for kind, backgrounds in kinds.items():
        rates = [f"{rate(factor, arguments, backgrounds):.0f}" for factor in FACTORS]
        lines.append(f"| {kind} | {' | '.join(rates)} |")
    write_section("Composites", lines)


if __name__ == "__main__":
    main()
