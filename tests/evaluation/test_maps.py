"""Insertion, deletion and how a map lies on the mask, where they can be computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import box_masks, dataset_of, photographs, vit
from torch.nn import functional

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.maps import (
    measurement,
    perturbation_areas,
    pointing_game,
    rank_accuracy,
    relevance_in_mask,
)
from hf_robustvit.evaluation.one_pass import measure
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun
from hf_robustvit.relevance import explain


class LinearInPatches(torch.nn.Module):
    """Two classes; the probability of the second is the sum of the weights of the patches that are there."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.weights = weights  # (rows, columns), sum at most 1

    def forward(self, pixel_values):
        there = functional.avg_pool2d(pixel_values[:, 0], 4)  # (batch, rows, columns): 1 or 0
        probability = (there * self.weights).sum(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([1 - probability, probability], dim=1).clamp(min=1e-30).log())


WEIGHTS = torch.tensor([[0.05, 0.3, 0.1], [0.2, 0.05, 0.2]])


def test_areas_of_a_model_linear_in_its_patches():
    relevance = torch.tensor([[[1.0, 6, 3], [5, 2, 4]], [[6.0, 1, 4], [2, 5, 3]]])  # as the weights, and the reverse
    pixels, target = torch.ones(2, 3, 8, 12), torch.tensor([1, 1])
    insertion, deletion = perturbation_areas(LinearInPatches(WEIGHTS), pixels, relevance, target)
    for row, order in enumerate([[0.3, 0.2, 0.2, 0.1, 0.05, 0.05], [0.05, 0.05, 0.1, 0.2, 0.2, 0.3]]):
        curve = np.concatenate([[0], np.cumsum(order)])
        assert insertion[row] == pytest.approx(np.mean((curve[1:] + curve[:-1]) / 2), abs=1e-6)
        # What is deleted is missing from the whole: for a linear model the two areas add up to the whole's score.
        assert deletion[row] == pytest.approx(sum(order) - float(insertion[row]), abs=1e-6)
    assert insertion[0] > insertion[1] and deletion[0] < deletion[1]


def test_fewer_steps_take_several_patches_at_a_time():
    relevance = torch.tensor([[[1.0, 6, 3], [5, 2, 4]]])
    insertion, _ = perturbation_areas(
        LinearInPatches(WEIGHTS), torch.ones(1, 3, 8, 12), relevance, torch.tensor([1]), steps=4
    )
    curve = [0, 0.5, 0.7, 0.8, 0.9]  # after 0, 2, 3, 4 and 6 of 6 patches: round(1.5) = 2, round(4.5) = 4
    shares = np.array([0, 2, 3, 4, 6]) / 6
    assert insertion[0] == pytest.approx(np.trapezoid(curve, shares), abs=1e-6)


def test_the_followed_class_is_the_target():
    relevance = torch.rand(1, 2, 3, generator=torch.Generator().manual_seed(0))
    model, pixels = LinearInPatches(WEIGHTS), torch.ones(1, 3, 8, 12)
    second, first = (perturbation_areas(model, pixels, relevance, torch.tensor([target])) for target in (1, 0))
    assert first[0] == pytest.approx(1 - float(second[0]), abs=1e-6)


def test_maps_on_masks_as_quantus_has_them():
    maps = np.round(np.random.default_rng(5).random((4, 4, 4)), 2)
    masks = np.zeros((4, 4, 4), dtype=int)
    masks[0, :2, :3], masks[1, 1:, 2:], masks[2, 2, 1:3], masks[3, :, 0] = 1, 1, 1, 1
    arguments = torch.tensor(maps), torch.tensor(masks)
    # RelevanceMassAccuracy, RelevanceRankAccuracy and PointingGame of Quantus 0.6.0, without normalisation.
    assert relevance_in_mask(*arguments).tolist() == pytest.approx([0.355185, 0.362451, 0.142271, 0.185355], abs=1e-6)
    assert rank_accuracy(*arguments).tolist() == pytest.approx([0.333333, 0.5, 0.5, 0], abs=1e-6)
    assert pointing_game(*arguments).tolist() == [0, 1, 0, 0]


def test_maps_on_masks_at_their_limits():
    masks = torch.zeros(1, 4, 6, dtype=torch.int8)
    masks[0, 1:3, 2:5], masks[0, 0] = 1, -1
    inside = (masks == 1) * torch.rand(1, 4, 6, generator=torch.Generator().manual_seed(0))
    measures = (relevance_in_mask, rank_accuracy, pointing_game)
    assert [float(measure(inside, masks)) for measure in measures] == [1, 1, 1]
    assert [float(measure((masks == 0).float(), masks)) for measure in measures] == [0, 0, 0]
    assert [float(measure(inside + 2 * (masks < 0), masks)) for measure in measures] == [1, 1, 1], "ignored pixels"
    assert [float(measure(torch.zeros(1, 4, 6), masks)) for measure in (relevance_in_mask, pointing_game)] == [0, 0]
    assert [float(measure(inside, torch.zeros_like(masks))) for measure in measures] == [0, 0, 0]
    several = torch.ones(1, 4, 6)  # any of the largest pixels will do, a constant map's too
    assert pointing_game(several, masks) == 1


@pytest.mark.parametrize("method", ["gae", "libra"])
def test_every_image_of_a_benchmark(tmp_path, method):
    model, processor = vit(12)
    paths = photographs(tmp_path / "images", count=10)
    masks = box_masks(paths, tmp_path / "masks")
    rows = dataset_of(paths, [0] * 10, [f"c{index}" for index in range(12)])
    rows = rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks])
    data = BenchmarkData("toy", rows, None, tests_masks=True)
    checkpoint, accelerator = Checkpoint("tiny", None, model, processor), Accelerator(cpu=True)
    run = BenchmarkRun(checkpoint, data, accelerator, LoopOptions(4), relevance_method=method)
    images, frame = run.images(squashed=True, with_masks=True), measure(run, measurement(run))
    assert frame["image_id"].tolist() == [path.name for path in paths]

    for number, row in enumerate(frame.itertuples()):
        pixels = images[number]["pixel_values"][None]
        explanation = explain(model, pixels, method=method)
        mask = np.array(Image.open(masks[number]).resize((32, 32), Image.Resampling.NEAREST)) > 0
        heat = explanation.relevance[0, 0].detach().numpy()
        assert row.relevance_in_mask == pytest.approx(heat[mask].sum() / heat.sum(), abs=1e-4)
        # Where the upscaled map is flat, rounding decides which of the equal pixels come first.
        above = heat[mask] - np.sort(heat.ravel())[-mask.sum()]
        assert (above > 1e-5).sum() - 0.1 < row.rank_accuracy * mask.sum() < (above > -1e-5).sum() + 0.1
        assert row.pointing_game == mask[heat == heat.max()].any()
        heat = explain(model, pixels, method="rollout").relevance[0, 0].detach().numpy()
        assert row.relevance_in_mask_rollout == pytest.approx(heat[mask].sum() / heat.sum(), abs=1e-4)
        # The 16 patches two by two, in plain loops.
        order = np.argsort(-explanation.patch_relevance[0].detach().numpy().ravel(), kind="stable")
        for name, start in (("insertion", np.zeros(16)), ("deletion", np.ones(16))):
            visible, heights = start, []
            for patches in [order[:0], *order.reshape(8, 2)]:
                visible[patches] = 1 - visible[patches]
                shown = torch.tensor(np.kron(visible.reshape(4, 4), np.ones((8, 8))), dtype=torch.float32)
                heights.append(float(model(pixels * shown).logits.softmax(dim=1)[0, explanation.target].detach()))
            assert getattr(row, name) == pytest.approx(np.trapezoid(heights, dx=1 / 8), abs=1e-4)
