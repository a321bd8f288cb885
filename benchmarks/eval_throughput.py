"""How much of the model's own speed run_eval.py keeps: its loop over JPEG files against a bare forward loop.

    python benchmarks/eval_throughput.py [--model base | small | tiny] [--images 64] [--rounds 3] [--workers 2]

Both run the same ViT with random weights over the same images in alternation. The bare loop takes preprocessed tensors
from memory, run_eval's reads, decodes, resizes and normalises the files and ranks the classes. Then the files are read
without a model, by one worker and by several. On a machine that does other work too, take the best of several rounds.
Last, what run_eval measures of photographs with masks is measured in one pass and in one pass for each measurement, by
process time; with the preprocessing of the maps' images, and with one that crops.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from hf_robustvit.evaluation import accuracy, backgrounds, maps
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages, Preprocessing, benchmark_image_processor
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.one_pass import Measurement, joint_images, measure
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun


SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # hidden size, heads


def make_photographs(folder: Path, count: int) -> datasets.Dataset:
    """Smooth random JPEG files of ImageNet's usual size, 500 x 375, of two classes, with masks of an ellipse."""
    rng = np.random.default_rng(0)
    names = [f"{number:05d}.jpg" for number in range(count)]
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, size=(24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    mask = Image.new("L", (500, 375))
    ImageDraw.Draw(mask).ellipse((100, 100, 400, 300), fill=255)
    mask.save(folder / "mask.png")
    rows = {
        "image": [str(folder / name) for name in names],
        "mask": [str(folder / "mask.png")] * count,
        "image_id": names,
        "label": [number % 2 for number in range(count)],
    }
    rows = datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=["LABEL_0", "LABEL_1"]))
    return rows.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())


def images_per_second(run: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def run_of(
    model: ViTForImageClassification, rows: datasets.Dataset, options: LoopOptions, preprocessing: Preprocessing
) -> BenchmarkRun:
    accelerator = Accelerator()
    model.to(accelerator.device).eval()
    space = match_classes("photographs", rows.features["label"].names, None, model.config)
    data = BenchmarkData("run_eval", rows, space, tests_masks=True)
    checkpoint = Checkpoint("random", None, model, ViTImageProcessorPil())
    return BenchmarkRun(checkpoint, data, accelerator, options, preprocessing)


def compare(model: ViTForImageClassification, rows: datasets.Dataset, options: LoopOptions, rounds: int) -> np.ndarray:
    """Time both loops in alternation and print the share of the bare loop's speed that run_eval keeps.

    Returns:
        (rounds, 2) images per second of the bare loop and of run_eval's.
    """
    run = run_of(model, rows, options, preprocessing="paper")
    accelerator, images = run.accelerator, run.images()
    batches = [
        torch.stack(
            [images[index]["pixel_values"] for index in range(start, min(start + options.batch_size, len(images)))]
        )
        for start in range(0, len(images), options.batch_size)
    ]

    @torch.no_grad()
    def bare() -> None:
        for batch in batches:
            model(pixel_values=batch.to(accelerator.device)).logits.argmax(dim=1).cpu()

    def evaluation() -> None:
        measure(run, accuracy.measurement(run))

    bare()  # warm-up
    speeds = np.array([[images_per_second(loop, len(images)) for loop in (bare, evaluation)] for _ in range(rounds)])
    for bare_speed, evaluation_speed in speeds:
        ratio = evaluation_speed / bare_speed
        print(f"bare {bare_speed:8.2f} images/s    run_eval {evaluation_speed:8.2f} images/s    ratio {ratio:.3f}")
    print(f"ratio of the best rounds: {speeds[:, 1].max() / speeds[:, 0].max():.3f}")
    return speeds


def feeding(images: BenchmarkImages, batch_size: int, workers: int) -> None:
    """Print how fast one worker and several read and preprocess the files."""
    passes = torch.utils.data.ConcatDataset([images] * max(1, 2000 // len(images)))
    rates = {}
    for count in sorted({1, workers}):
        loader = DataLoader(passes, batch_size=batch_size, num_workers=count)
        rates[count] = images_per_second(lambda loader=loader: sum(1 for _ in loader), len(passes))
        print(f"{count} workers feed {rates[count]:.0f} images/s")
    print(f"{workers} workers feed {rates[workers] / rates[1]:.2f} times what one does, on {os.cpu_count()} cores")


def one_pass(model: ViTForImageClassification, rows: datasets.Dataset, batch_size: int, rounds: int) -> None:
    """Print how long one pass of accuracy, maps and other backgrounds takes, as a share of a pass for each.

    Without workers, whose time would not count; and once more for the images alone, as workers make them.
    """
    for preprocessing in ("checkpoint", "paper"):
        run = run_of(model, rows, LoopOptions(batch_size), preprocessing)
        measurements = [module.measurement(run) for module in (accuracy, maps, backgrounds)]

        def take(*measurements: Measurement, run: BenchmarkRun = run) -> None:
            measure(run, *measurements)

        def feed(*measurements: Measurement) -> None:
            images = joint_images(*measurements)
            for row in range(len(images)):
                images[row]

        for what, do in (("model and images", take), ("images alone", feed)):
            seconds = np.array([_one_and_each(do, measurements) for _ in range(rounds)])
            one, each = np.median(seconds, axis=0)
            print(f"{preprocessing} preprocessing, {what}: one pass {one:.2f} s, each its own {each:.2f} s", end=", ")
            print(f"ratio {np.median(seconds[:, 0] / seconds[:, 1]):.2f}")


def _one_and_each(do: Callable[..., None], measurements: list[Measurement]) -> tuple[float, float]:
    """Seconds of the processor for all measurements at once, and one after the other."""
    start = time.process_time()
    do(*measurements)
    middle = time.process_time()
    for measurement in measurements:
        do(measurement)
    return middle - start, time.process_time() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="base")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    hidden_size, heads = SIZES[arguments.model]
    config = ViTConfig(
        hidden_size=hidden_size, num_attention_heads=heads, intermediate_size=4 * hidden_size, num_labels=1000
    )
    model = ViTForImageClassification._from_config(config, attn_implementation="sdpa")
    with tempfile.TemporaryDirectory() as folder:
        rows = make_photographs(Path(folder), arguments.images)
        images = BenchmarkImages(rows, benchmark_image_processor("paper", ViTImageProcessorPil(), config))
        compare(model, rows, LoopOptions(arguments.batch_size, arguments.workers), arguments.rounds)
        feeding(images, arguments.batch_size, arguments.workers)
        one_pass(model, rows, arguments.batch_size, arguments.rounds)


if __name__ == "__main__":
    main()
