"""Tiny copies of data sets in their authors' layouts, and an independent loop that scores them.

Use them with `from official_layouts import ...`; pytest puts this folder on the path of the tests beside it.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import photographs, plain_logits
from transformers import PreTrainedModel

from hf_robustvit.builders import load_benchmark_rows
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.imagenet_classes import IMAGENET_A, IMAGENET_R, WNIDS


SETS_BY_WNID = {
    "imagenet-val": ("val", "ILSVRC2012_val_{:08d}.JPEG", tuple(range(1000))),
    "imagenet-a": ("imagenet-a", "0.{:06d}_fox squirrel _ marmot_0.85.jpg", IMAGENET_A),
    "imagenet-r": ("imagenet-r", "art_{}.jpg", IMAGENET_R),
    "imagenet-sketch": ("sketch", "sketch_{}.JPEG", tuple(range(1000))),
    "imagenet-v2": ("imagenetv2-matched-frequency-format-val", "{:040x}.jpeg", tuple(range(1000))),
}


def plant(
    holder: Path, checkpoint: Checkpoint, classes: Sequence[Sequence[int]], target: Callable[[int, int], Path]
) -> dict[Path, tuple[int, ...]]:
    """Photographs (grey, CMYK, palette and EXIF-rotated ones among them) in the classes the model thinks of.

    Args:
        holder: Where the photographs are made.
        checkpoint: Its first to eighth choice by turns is the class of an image.
        classes: The ImageNet indices of every class of the data set.
        target: Where an image goes, by its number and its class's position.

    Returns:
        The ImageNet indices of each image.
    """
    made = photographs(holder / "made", count=24)
    logits = plain_logits(checkpoint.model, made, "paper")
    best = np.stack([logits[:, list(indices)].max(axis=1) for indices in classes], axis=1)
    truth = {}
    for number, path in enumerate(made):
        position = int(np.argsort(-best[number])[number % 8])
        destination = target(number, position)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, destination)
        truth[destination] = tuple(classes[position])
    return truth


def plant_imagenet(holder: Path, checkpoint: Checkpoint, name: str) -> dict[Path, tuple[int, ...]]:
    """One of `SETS_BY_WNID`, with the files that lie about in it."""
    folder, file_name, indices = SETS_BY_WNID[name]

    def target(number: int, position: int) -> Path:
        index = indices[position]
        return holder / folder / (str(index) if name == "imagenet-v2" else WNIDS[index]) / file_name.format(number)

    truth = plant(holder, checkpoint, [(index,) for index in indices], target)
    (holder / folder / "README.txt").write_text("about the data set")
    (holder / folder / "__MACOSX").mkdir()
    (next(iter(truth)).parent / "list.csv").write_text("a,b")
    return truth


def check_accuracies(
    name: str,
    data_dir: Path,
    checkpoint: Checkpoint,
    truth: dict[Path, tuple[int, ...]],
    classes: list,
    border: int = 0,
) -> None:
    """run_eval's figures equal those of a loop over PIL and the raw model, in the paper's and the authors' protocol.

    Args:
        name: As in --dataset.
        data_dir: As in --data_dir.
        checkpoint: A model of 1000 classes.
        truth: The ImageNet indices of every image that counts.
        classes: The ImageNet indices of every class of the benchmark.
        border: As in --crop_border.
    """
    data = BenchmarkData.for_model(load_benchmark_rows(name, str(data_dir)), checkpoint.model.config)
    options = LoopOptions(batch_size=7)
    accelerator = Accelerator(cpu=True)
    result = evaluate_benchmark(checkpoint, data, data_dir / "out", accelerator, options, "paper", border)

    logits = plain_logits(checkpoint.model, list(truth), "paper", border)
    first = np.array([indices[0] for indices in truth.values()])
    order = np.argsort(-logits, axis=1)
    top1, top5 = order[:, 0] == first, (order[:, :5] == first[:, None]).any(axis=1)
    assert result.num_images == len(truth)
    assert np.isclose(result.top1, 100 * top1.mean()) and np.isclose(result.top5, 100 * top5.mean())
    assert 0 < top1.mean() <= top5.mean() < 1 or len(classes) < 1000, "the planted labels tell nothing"

    used = {index for indices in classes for index in indices}
    if len(used) < 1000:
        best = np.stack([logits[:, list(indices)].max(axis=1) for indices in classes], axis=1)
        position = np.array([classes.index(indices) for indices in truth.values()])
        subset = np.argsort(-best, axis=1)
        assert np.isclose(result.top1_subset, 100 * (subset[:, 0] == position).mean())
        assert np.isclose(result.top5_subset, 100 * (subset[:, :5] == position[:, None]).any(axis=1).mean())
        assert 0 < result.top1_subset < 100, "the planted labels tell nothing"
    else:
        assert result.top1_subset is None
    if any(len(indices) > 1 for indices in classes):
        top1_any = [best in indices for best, indices in zip(order[:, 0], truth.values(), strict=True)]
        assert np.isclose(result.top1_any, 100 * np.mean(top1_any))


@torch.no_grad()
def whole_logits(model: PreTrainedModel, paths: Sequence[Path]) -> np.ndarray:
    """The logits of the raw model for images that are squashed to its input, with the paper's mean and deviation."""
    pixels = [
        np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for path in paths
    ]
    values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
    return model(values.float()).logits.numpy()


def evaluate_set(name: str, data_dir: Path, checkpoint: Checkpoint) -> tuple[BenchmarkResult, pd.DataFrame]:
    """run_eval's result and predictions of a data set, with the paper's colours; written to data_dir/out."""
    data = BenchmarkData.for_model(load_benchmark_rows(name, str(data_dir)), checkpoint.model.config)
    accelerator, options = Accelerator(cpu=True), LoopOptions(batch_size=7)
    result = evaluate_benchmark(checkpoint, data, data_dir / "out", accelerator, options, "paper")
    return result, read_predictions(data_dir / "out", name)


def save_image(path: Path, value: int = 100, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    """A plain image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(path)
    return path


def save_json(path: Path, content: object) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


OBJECTNET = {  # folder -> its label and its ImageNet indices, the paper's first
    "alarm_clock": ("Alarm clock", (409, 530)),
    "chair": ("Chair", (423, 559, 765)),
    "mug": ("Mug", (504,)),
    "tie": ("Tie", (457, 906)),
    "t_shirt": ("T-shirt", (610,)),
    "wok": ("Wok", (909,)),
}


def write_objectnet_tables(root: Path, classes: dict = OBJECTNET) -> None:
    """ObjectNet's four tables. As in the real ones, ImageNet's names stand in another order than its indices."""
    position = {index: (index * 7 + 3) % 1000 for index in range(1000)}  # 7 and 1000 have no common factor
    lines = {place: f"class {index}, also called so" for index, place in position.items()}
    mappings = root / "mappings"
    labels = {folder: label for folder, (label, _) in classes.items()} | {"air_freshener": "Air freshener"}
    save_json(mappings / "folder_to_objectnet_label.json", labels)
    names = {label: "; ".join(lines[position[index]] for index in indices) for label, indices in classes.values()}
    save_json(mappings / "objectnet_to_imagenet_1k.json", names)
    save_json(mappings / "pytorch_to_imagenet_2012_id.json", {str(index): position[index] for index in position})
    (mappings / "imagenet_to_label_2012_v2").write_text("".join(lines[place] + "\n" for place in range(1000)))
