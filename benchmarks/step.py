"""Time of one training step of every kind, side by side: `python -m benchmarks.step`.

A step is the forward passes, the backward passes and the gradients of the weights, without the optimizer. The kinds
take turns, and each round gives one time of each. On a CPU the time is that of the process on one thread, which other
processes on the machine disturb little; on a GPU it is between two CUDA events.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable

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


TARGETS = [
    ("eager", "plain", "at most 1.45"),
    ("lean", "plain-sdpa", "at most 1.27 at 197 tokens, 1.5 at 785"),
    ("lean", "plain-sdpa-cls", "at most 1.4"),
    ("authors", "eager", "at least 3.5"),
    ("authors", "lean", "at least 3.5"),
    ("lean-bf16", "eager-bf16", "at most 1"),
    ("eager-libra", "eager", "at most 1.1"),
    ("lean-libra", "lean", "at most 1.1"),
    ("lean-libra-bf16", "lean-bf16", "at most 1.1"),
    ("lean-last-layer", "lean", "below 1"),
    ("lean-last-layer", "plain-sdpa", "told, not promised"),
    ("eager-bf16", "eager", "at most 0.6"),
    ("lean-bf16", "lean", "at most 0.6"),
]


def seconds(run: Callable[[], None]) -> float:
    """The time that `run` takes."""
    if DEVICE == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    begin = time.process_time()
    run()
    return time.process_time() - begin


def time_steps(names: Iterable[str], model, batch, rounds: int) -> dict[str, float]:
    """The median seconds of each kind of step over interleaved rounds; one more round before them is not counted."""
    times = {name: [] for name in names}
    for _ in range(1 + rounds):
        for name, found in times.items():
            found.append(seconds(lambda name=name: STEPS[name](model, batch)))
            print(f"{name}: {found[-1]:.3f} s", file=sys.stderr)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def profile(name: str, model, batch) -> list[str]:
    """A table of the operations that take most of a step's time."""
    with torch.profiler.profile() as profiler:
        STEPS[name](model, batch)
    time_of = f"self_{'device' if DEVICE == 'cuda' else 'cpu'}_time_total"
    operations = sorted(profiler.key_averages(), key=lambda operation: getattr(operation, time_of), reverse=True)
    total = sum(getattr(operation, time_of) for operation in operations)
    return ["| operation | calls | share of the time |", "|---|---|---|"] + [
        f"| `{operation.key}` | {operation.count} | {getattr(operation, time_of) / total:.1%} |"
        for operation in operations[:15]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="Kinds that take part.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", choices=STEPS, help="Tell where this step's time goes, and time nothing.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(arguments.size, arguments.image_size)
    batch = make_batch(arguments.batch_size, arguments.image_size)
    what = f"at {arguments.image_size}, batch {arguments.batch_size}"
    if arguments.profile:
        title = f"Where the time goes ({model_name(arguments.size)}; {STEPS[arguments.profile].label})"
        lines = [f"torch.profiler on one step {what}, one thread. {machine()}", ""]
        write_section(title, lines + profile(arguments.profile, model, batch))
        return
    times = time_steps(arguments.steps, model, batch, arguments.rounds)
    first, which = arguments.steps[0], "a training step" if len(times) == len(STEPS) else "some training steps"
    lines = [
        f"{model_name(arguments.size)} {what}, medians of {arguments.rounds} "
        f"interleaved rounds; {'CUDA events' if DEVICE == 'cuda' else 'process time on one thread'}. {machine()}",
        "",
        f"| step | seconds | / {STEPS[first].label} |",
        "|---|---|---|",
        *(f"| {STEPS[name].label} | {time:.3f} | {time / times[first]:.2f} |" for name, time in times.items()),
        *ratio_lines(times, TARGETS),
    ]
    at = "" if arguments.image_size == 224 else f" at {arguments.image_size}"
    write_section(f"Time of {which} ({model_name(arguments.size)}{at})", lines)


if __name__ == "__main__":
    main()
