"""How time and memory of a training step grow with tokens, images and layers: `python -m benchmarks.scaling`."""

import argparse

import torch

from benchmarks.common import SIZES, STEPS, machine, make_batch, make_model, model_name, write_section
from benchmarks.memory import measure
from benchmarks.step import time_steps


NAMES = ("plain-sdpa", "eager", "lean")
IMAGE_SIZES, BATCH_SIZES, DEPTHS = (224, 320, 448), (1, 2, 4, 8), (6, 12, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layers = SIZES[arguments.size][1]
    points = dict.fromkeys(
        [(image_size, 2, layers) for image_size in IMAGE_SIZES]
        + [(224, batch_size, layers) for batch_size in BATCH_SIZES]
        + [(224, 2, depth) for depth in DEPTHS]
    )
    lines = [
        f"{model_name(arguments.size)}, medians of {arguments.rounds} interleaved rounds; memory beyond the weights "
        f"and their gradients. {machine()}",
        "",
        "| image | tokens | batch | layers | " + " | ".join(f"{STEPS[name].label}: s, MiB" for name in NAMES) + " |",
        "|" + "---|" * (4 + len(NAMES)),
    ]
    for image_size, batch_size, depth in points:
        model, batch = make_model(arguments.size, image_size, depth), make_batch(batch_size, image_size)
        times = time_steps(NAMES, model, batch, arguments.rounds)
        cells = (
            f"{times[name]:.2f}, {measure(name, arguments.size, batch_size, image_size, depth) / 2**20:.0f}"
            for name in NAMES
        )
        tokens = (image_size // 16) ** 2 + 1
        lines.append(f"| {image_size} | {tokens} | {batch_size} | {depth} | {' | '.join(cells)} |")
    write_section(f"Growth with tokens, images and layers ({model_name(arguments.size)})", lines)


if __name__ == "__main__":
    main()
