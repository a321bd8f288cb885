"""How often the audit is wrong: `python -m benchmarks.audit`.

Cutouts with the planted bias on, `cutouts-vit`, and off, the same model with a read-out learned without bias: many
draws of few development images.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.common import write_section
from hf_robustvit.cutouts import CLASS_NAMES, pretrain, render
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.evaluation.audit import load_answers
from hf_robustvit.evaluation.audit_findings import find
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun


NUM_CLASSES = len(CLASS_NAMES)
VERDICTS = ("background", "object", "unclear")


def unbiased(num_steps: int = 625, pool_size: int = 20_000) -> Checkpoint:
    """`cutouts-vit` with a read-out learned as its own was, on images whose scene says nothing of the class."""
    checkpoint = Checkpoint.load("cutouts-vit")
    pretrain.learn_biased_read_out(checkpoint.model, num_steps, pool_size, split="pretrain")
    return Checkpoint.of("unbiased", None, checkpoint.model.eval(), checkpoint.image_processor)


def draw(split: str, count: int, num_classes: int, seed: int) -> BenchmarkRows:
    """Some images of a split, as many of each of some classes: which, the seed says."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(NUM_CLASSES, num_classes, replace=False)
    rounds = rng.choice(2100 // NUM_CLASSES, count // num_classes, replace=False)
    indices = sorted(int(NUM_CLASSES * turn + label) for turn in rounds for label in classes)
    images = [render(split, index) for index in indices]
    features = {
        "image": datasets.Image(),
        "mask": datasets.Image(),
        "label": datasets.ClassLabel(names=list(CLASS_NAMES)),
        "image_id": datasets.Value("string"),
        "object": datasets.Value("string"),
    }
    columns = {name: [getattr(image, name) for image in images] for name in ("image", "mask", "label", "object")}
    columns["image_id"] = [f"{split}/{index:05d}" for index in indices]
    return BenchmarkRows("cutouts", datasets.Dataset.from_dict(columns, features=datasets.Features(features)))


def audit(checkpoint: Checkpoint, photos: BenchmarkRows) -> dict:
    """The findings about a model on some photos."""
    data = BenchmarkData.for_model(photos, checkpoint.model.config)
    how = Accelerator(cpu=True), LoopOptions()
    with tempfile.TemporaryDirectory() as folder:
        result = evaluate_benchmark(checkpoint, data, Path(folder), *how, oracle=True)
        return find(load_answers(BenchmarkRun(checkpoint, data, *how, oracle=True), result, Path(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--split", default="dev")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = {"on (cutouts-vit)": Checkpoint.load("cutouts-vit"), "off (unbiased read-out)": unbiased()}
    lines = [
        "| planted bias | draws | photos | classes | background | object | unclear | mean reliance | taken for it |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for count, num_classes in ((30, 30), (30, 10), (120, 30)):
        for title, model in models.items():
            found = [audit(model, draw(arguments.split, count, num_classes, seed)) for seed in range(arguments.draws)]
            verdicts = Counter(each["verdict"] for each in found)
            means = [np.mean([each[name] for each in found]) for name in ("reliance", "follows_background")]
            cells = [title, arguments.draws, count, num_classes]
            cells += [verdicts[name] for name in ("background", "object", "unclear")] + [
                f"{mean:.1f}" for mean in means
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], flush=True)
    write_section("The audit's verdict on few images", lines)


if __name__ == "__main__":
    main()
