"""The segmentation test of a benchmark against a plain re-implementation of the protocol."""

import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import box_masks, dataset_of, photographs, vit
from sklearn.metrics import average_precision_score
from torch.nn import functional

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData


NAMES = [f"c{index}" for index in range(12)]


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint("tiny", None, *vit(12))


@pytest.fixture
def pairs(tmp_path):
    paths = photographs(tmp_path / "images", count=12)
    return list(zip(paths, box_masks(paths, tmp_path / "masks"), strict=True))


def data_of(checkpoint, pairs, labels=True, tests_masks=True) -> BenchmarkData:
    name = "toy-segmentation"
    images, masks = zip(*pairs, strict=True)
    rows = dataset_of(images, [number % 12 for number in range(len(pairs))], NAMES)
    rows = rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks], feature=datasets.Image())
    if not labels:
        return BenchmarkData(name, rows.remove_columns("label"), None, tests_masks)
    return BenchmarkData(name, rows, match_classes(name, NAMES, None, checkpoint.model.config), tests_masks)


def plain_scores(model, pairs, mean, deviation):
    """Tab. 3's protocol with the full relevance matrix (Eq. 6-7), image by image."""
    correct = labelled = 0
    intersection, union, precisions = np.zeros(2), np.zeros(2), []
    for image_path, mask_path in pairs:
        image = Image.open(image_path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        mask = np.array(Image.open(mask_path).resize((32, 32), Image.Resampling.NEAREST)) > 0
        pixels = ((np.asarray(image) / 255 - mean) / deviation).astype(np.float32)
        output = model(torch.from_numpy(pixels).permute(2, 0, 1)[None], output_attentions=True)
        gradients = torch.autograd.grad(output.logits[0].max(), output.attentions)
        relevance = torch.eye(17)
        for attention, gradient in zip(output.attentions, gradients, strict=True):
            relevance = relevance + (gradient * attention)[0].clamp(min=0).mean(dim=0) @ relevance
        patches = relevance[0, 1:].reshape(1, 1, 4, 4).detach()
        upscaled = functional.interpolate(patches, scale_factor=8, mode="bilinear")[0, 0].numpy()
        scores = (upscaled - upscaled.min()) / (upscaled.max() - upscaled.min())
        predicted = scores > scores.mean()
        correct, labelled = correct + (predicted == mask).sum(), labelled + mask.size
        for position, wanted in enumerate((False, True)):
            intersection[position] += ((predicted == wanted) & (mask == wanted)).sum()
            union[position] += ((predicted == wanted) | (mask == wanted)).sum()
        targets = np.concatenate([~mask.ravel(), mask.ravel()])
        precisions.append(average_precision_score(targets, np.concatenate([1 - scores.ravel(), scores.ravel()])))
    return 100 * correct / labelled, 100 * np.mean(intersection / union), 100 * np.mean(precisions)


@pytest.mark.parametrize(
    ("preprocessing", "mean", "deviation"), [("checkpoint", [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]), ("paper", 0.5, 0.5)]
)
def test_the_protocol_of_table_3(checkpoint, pairs, tmp_path, preprocessing, mean, deviation):
    options = LoopOptions(batch_size=5)
    data = data_of(checkpoint, pairs)
    result = evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), options, preprocessing)
    pixel_accuracy, mean_iou, mean_average_precision = plain_scores(checkpoint.model, pairs, mean, deviation)
    assert result.pixel_accuracy == pytest.approx(pixel_accuracy, abs=0.02)  # two pixels of 12 * 32 * 32
    assert result.mean_iou == pytest.approx(mean_iou, abs=0.02)
    # Many pixels of an upscaled map are equal but for rounding, and average precision depends on their order.
    assert result.mean_average_precision == pytest.approx(mean_average_precision, abs=0.1)
    low, high = result.mean_iou_ci95
    assert low < result.mean_iou < high
    assert result.top1 is not None and result.num_images == 12

    stored = json.loads((tmp_path / "out" / "toy-segmentation.json").read_text())
    assert stored["mean_iou"] == result.mean_iou
    frame = pd.read_parquet(tmp_path / "out" / "toy-segmentation.predictions.parquet")
    assert {"image_id", "top5_indices", "foreground_intersection"} <= set(frame) and len(frame) == 12


def test_a_set_without_labels_gets_the_segmentation_test_only(checkpoint, pairs, tmp_path):
    data = data_of(checkpoint, pairs, labels=False)
    result = evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), LoopOptions())
    assert result.top1 is None and result.per_class == {} and result.pixel_accuracy > 0
    assert result.protocol["label_space"] is None


def test_masks_of_other_benchmarks_are_not_looked_at(checkpoint, pairs, tmp_path):
    data = data_of(checkpoint, pairs, tests_masks=False)
    result = evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), LoopOptions())
    assert result.pixel_accuracy is None and result.top1 is not None


def test_a_broken_mask_stops_the_run_or_is_left_out(checkpoint, pairs, tmp_path):
    Image.new("L", (3, 3)).save(pairs[4][1])
    pairs[7][1].write_text("no mask")
    data = data_of(checkpoint, pairs)
    with pytest.raises(UserError, match=r"'004\.jpg' cannot be read \(its mask is 3x3 pixels, its image .* 80x61\)"):
        evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), LoopOptions())
    skipping = LoopOptions(skip_unreadable=True)
    result = evaluate_benchmark(checkpoint, data, tmp_path / "out", Accelerator(cpu=True), skipping)
    assert result.unreadable == ["004.jpg", "007.jpg"] and result.num_images == 10
