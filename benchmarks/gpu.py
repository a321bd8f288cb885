"""What benchmarks/gpu.sh runs: the golden numbers, steps, memory and evaluation on a GPU, as one Markdown table.

On a CPU the same code runs on the smallest sizes, which tells that it works and nothing of speed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import golden_numbers
import torch

from benchmarks.common import DEVICE, STEPS, machine, make_batch, make_model, model_name
from benchmarks.eval_throughput import compare, make_photographs
from benchmarks.memory import measure_here
from benchmarks.step import seconds, time_steps
from hf_robustvit import explain
from hf_robustvit.evaluation.loop import LoopOptions


ON_GPU = DEVICE == "cuda"
LIMIT = 300  # seconds, after which no further part starts
SETTINGS = (  # size, image size, batch size
    [("base", 224, 32), ("base", 384, 16), ("large", 224, 16), ("dinov2-base", 518, 8)]
    if ON_GPU
    else [("test", 32, 2), ("test", 64, 1)]
)
TIMED = (
    "plain-sdpa",
    "eager",
    "lean",
    "lean-kept",
    "plain-sdpa-bf16",
    "eager-bf16",
    "lean-bf16",
    "eager-fp16",
    "lean-fp16",
)
Row = tuple[str, str, str]  # what, of which model, the figure


def golden() -> Iterator[Row]:
    """How far the map of the tests' model is from the authors' in each precision; matrix products without TF32."""
    pixel_values, _, labels = (tensor.to(DEVICE) for tensor in golden_numbers.batch())
    wanted = torch.from_numpy(golden_numbers.arrays()["raw_gt"]).to(DEVICE)
    model = golden_numbers.model().to(DEVICE)
    for attention in ("eager", "lean", "lean_kept_maps"):
        model.set_attn_implementation(attention)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
                found = explain(model, pixel_values, target=labels).patch_relevance.detach().flatten(1)
            name = f"{attention}, {str(dtype).removeprefix('torch.')}"
            yield "relative error of the authors' map", name, f"{golden_numbers.relative_error(found, wanted):.1e}"


def steps(size: str, image_size: int, batch_size: int, rounds: int = 3) -> Iterator[Row]:
    """Milliseconds and MiB of each kind of training step."""
    where = f"{model_name(size)} at {image_size}, batch {batch_size}"
    model, batch = make_model(size, image_size), make_batch(batch_size, image_size)
    times = time_steps(TIMED, model, batch, rounds)
    del model, batch
    for name, time_taken in times.items():
        yield (
            f"step: {STEPS[name].label}",
            where,
            f"{1000 * time_taken:.1f} ms, {time_taken / times['plain-sdpa']:.2f}",
        )
    if not ON_GPU:  # where each kind needs a fresh process, which takes long to start
        yield "memory", where, "see benchmarks/memory.py"
        return
    for name in ("plain-sdpa", "eager", "lean"):
        yield (
            f"memory: {STEPS[name].label}",
            where,
            f"{measure_here(name, size, batch_size, image_size) / 2**20:.0f} MiB",
        )


def growth() -> Iterator[Row]:
    """A lean step beside a plain one, over numbers of tokens."""
    size, image_sizes = ("small", (224, 448, 672)) if ON_GPU else ("test", (32, 64))
    for image_size in image_sizes:
        times = time_steps(("plain-sdpa", "lean"), make_model(size, image_size), make_batch(2, image_size), rounds=3)
        ratio = f"{times['lean'] / times['plain-sdpa']:.2f}"
        yield "growth: lean / cross-entropy, SDPA", f"{model_name(size)} at {image_size}, batch 2", ratio


def compiled() -> Iterator[Row]:
    """A plain step under torch.compile, which cannot be had with maps: a compiled model gives its attentions no
    gradients.
    """
    size, image_size, batch_size = SETTINGS[0]
    where = f"{model_name(size)} at {image_size}, batch {batch_size}"
    model, batch = make_model(size, image_size), make_batch(batch_size, image_size)
    model.set_attn_implementation("sdpa")
    compiled_model = torch.compile(model, backend="inductor" if ON_GPU else "eager")

    def step(which: torch.nn.Module) -> None:
        torch.nn.functional.cross_entropy(which(batch[0]).logits, batch[2]).backward()

    for which in (model, compiled_model):
        step(which)
    plain, faster = (
        min(seconds(lambda which=which: step(which)) for _ in range(3)) for which in (model, compiled_model)
    )
    yield "torch.compile / plain step", where, f"{faster / plain:.2f}"


def evaluation() -> Iterator[Row]:
    """run_eval's loop over JPEG files, with workers and pinned memory, against a bare loop over tensors."""
    size, _, batch_size = SETTINGS[0]
    model = make_model(size).eval()
    model.set_attn_implementation("sdpa")
    with tempfile.TemporaryDirectory() as folder:
        rows = make_photographs(Path(folder), 2048 if ON_GPU else 4)
        for bf16 in (False, True):
            options = LoopOptions(batch_size, num_workers=8 if ON_GPU else 1, bf16=bf16)
            bare, loop = compare(model, rows, options, rounds=1).max(axis=0)
            yield (
                f"run_eval, {options.num_workers} workers{', bf16' if bf16 else ''}",
                f"{model_name(size)} at 224, batch {batch_size}",
                f"{loop:.0f} images/s, {loop / bare:.2f} of a bare loop in fp32",
            )


def run(parts: dict[str, Callable[[], Iterator[Row]]]) -> list[Row]:
    """The rows of all parts; what fails or comes too late says so in its row, and the others go on."""
    begin, rows = time.monotonic(), []
    for name, part in parts.items():
        if time.monotonic() - begin > LIMIT:
            rows.append((name, "", "not run: the time was over"))
            continue
        try:
            rows.extend(part())
        except (RuntimeError, ImportError) as error:  # what a GPU, its memory or its compiler refuses
            rows.append((name, "", f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="Where the Markdown table goes.")
    table = parser.parse_args().table
    if not ON_GPU:
        torch.set_num_threads(1)
    parts = {"golden numbers": golden}
    parts |= {
        f"{size} at {image_size}": lambda s=(size, image_size, batch): steps(*s)
        for size, image_size, batch in SETTINGS
    }
    parts |= {"growth": growth, "torch.compile": compiled, "evaluation": evaluation}
    timed_by = "CUDA events" if ON_GPU else "process time on one thread; not run on a GPU"
    lines = [f"{machine()} {timed_by[0].upper()}{timed_by[1:]}.", "", "| what | where | measured |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in run(parts)]
    table.write_text("\n".join(lines) + "\n")
    print(table.read_text())


if __name__ == "__main__":
    main()
