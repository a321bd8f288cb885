"""Peak memory of one training step of every kind, each in a fresh process: `python -m benchmarks.memory`.

Counted is what the step takes beyond the weights and their gradients, which are there before it starts: the
activations and whatever is computed on the way. On a CPU it is resident memory (read as Linux
gives it), on a GPU allocated memory.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import (
    DEVICE,
    SIZES,
    STEPS,
    machine,
    make_batch,
    make_model,
    model_name,
    ratio_lines,
    write_section,
)


TARGETS = [("lean", "eager", "at most 0.65"), ("lean", "plain-sdpa", "at most 1.5")]


def memory(peak: bool = False) -> int:
    """The number of bytes that are held now, or the largest that was held so far."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    # Not getrusage's ru_maxrss, in which a process inherits the peak of the one that started it.
    field = "VmHWM" if peak else "VmRSS"
    return 1024 * int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def measure_here(name: str, size: str, batch_size: int, image_size: int, num_layers: int | None = None) -> int:
    """Bytes that one step takes at its peak in this process."""
    torch.set_num_threads(1)
    model, batch = make_model(size, image_size, num_layers), make_batch(batch_size, image_size)
    step = STEPS[name]
    step(model, make_batch(1, image_size))  # makes the gradients, and what libraries set up once
    # A DINOv2 has a mask token that nothing trains.
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad = lambda: torch._foreach_zero_(gradients)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = memory()
    step(model, batch)
    return memory(peak=True) - before


def measure(name: str, size: str, batch_size: int, image_size: int = 224, num_layers: int | None = None) -> int:
    """Bytes that one step takes at its peak in a fresh process."""
    arguments = [name, size, batch_size, image_size, *([num_layers] if num_layers else [])]
    # Memory goes back to the system as soon as it is freed, so that the peak is that of the tensors.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.memory", "--here", *map(str, arguments)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        name, size, *numbers = arguments.here
        print(measure_here(name, size, *map(int, numbers)))
        return
    found = {
        name: measure(name, arguments.size, arguments.batch_size, arguments.image_size) / 2**20
        for name in arguments.steps
    }
    lines = [
        f"{model_name(arguments.size)} at {arguments.image_size}, batch {arguments.batch_size}, beyond the weights "
        f"and their gradients. {machine()}",
        "",
        f"| step | MiB | / {STEPS[arguments.steps[0]].label} |",
        "|---|---|---|",
        *(
            f"| {STEPS[name].label} | {mib:.0f} | {mib / found[arguments.steps[0]]:.2f} |"
            for name, mib in found.items()
        ),
        *ratio_lines(found, TARGETS),
    ]
    title = f"Peak memory of a training step ({model_name(arguments.size)} at {arguments.image_size})"
    write_section(title, lines)


if __name__ == "__main__":
    main()
