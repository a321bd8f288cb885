"""SaCo and the noise of relative foreground sensitivity against plain loops and on planted models."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import box_masks, dataset_of, photographs, vit
from torch.nn import functional

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.faithfulness import NOISE, accuracy_under_noise, applies, measurement, saco
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.one_pass import measure
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun
from hf_robustvit.relevance import explain


class LinearInPixels(torch.nn.Module):
    """Two classes; the second's probability is 1/2 and the sum of the weighted red values."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights  # (height, width)

    def forward(self, pixel_values):
        probability = 0.5 + (pixel_values[:, 0] * self.weights).sum(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([1 - probability, probability], dim=1).log())


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain_saco(model, pixels, relevance, target, groups=10):
    """Algorithm 1 of the paper for one image, as it stands there."""
    order = np.argsort(-relevance.flatten().numpy(), kind="stable")
    members = [[] for _ in range(groups)]
    for place, pixel in enumerate(order):
        members[place * groups // len(order)].append(pixel)
    mean, whole = pixels.mean(dim=(1, 2)), float(model(pixels[None]).logits.softmax(dim=1)[0, target])
    salience, drops = [], []
    for pixels_of_group in members:
        changed = pixels.clone().flatten(1)
        changed[:, pixels_of_group] = mean[:, None]
        drops.append(whole - float(model(changed.view_as(pixels)[None]).logits.softmax(dim=1)[0, target]))
        salience.append(float(relevance.flatten()[pixels_of_group].sum()))
    coefficient = total = 0
    for more in range(groups - 1):
        for less in range(more + 1, groups):
            weight = salience[more] - salience[less]
            coefficient += weight if drops[more] >= drops[less] else -weight
            total += abs(weight)
    return coefficient / total


def test_saco_equals_the_papers_algorithm():
    model, pixels, maps = vit(5)[0], torch.randn(4, 3, 32, 32), random(4, 32, 32)
    target = torch.tensor([0, 3, 1, 4])
    with torch.no_grad():
        found = saco(model, pixels, maps, target)
        for image in range(4):
            wanted = plain_saco(model, pixels[image], maps[image], int(target[image]))
            assert found[image] == pytest.approx(wanted, abs=1e-4)
    assert 0 < found.abs().min() and found.abs().max() < 1


def test_saco_of_the_true_salience_its_reverse_and_noise():
    contributions = random(20, 20) ** 3
    model, pixels = LinearInPixels(contributions / 1000), torch.ones(1, 3, 20, 20)
    pixels[:, :, 0, 0] = -100  # so that the mean colour takes something away from every other pixel
    one = torch.tensor([1])
    maps = contributions.clone()
    maps[0, 0] = 0
    assert saco(model, pixels, maps[None], one)[0] == pytest.approx(1, abs=0.01)
    assert saco(model, pixels, 1 - maps[None], one)[0] == pytest.approx(-1, abs=0.01)
    assert saco(model, pixels, torch.full((1, 20, 20), 0.3), one)[0] == 0
    shuffled = random(300, 20, 20, seed=1)
    found = saco(model, pixels.expand(300, -1, -1, -1), shuffled, one.expand(300))
    assert found.mean().abs() < 3 * found.std() / 300**0.5 < 0.1


def test_noise_has_one_energy_and_lies_in_its_part_alone():
    seen = []

    def model(pixel_values):
        seen.append(pixel_values * 2 + 0.5)
        return SimpleNamespace(logits=torch.eye(3)[: len(pixel_values)])

    pixels, part = torch.zeros(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.bool)
    part[0, :8], part[1, 3:5, 3:5] = True, True
    constants = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 2.0)
    hits = accuracy_under_noise(model, pixels, part, torch.tensor([0, 2]), *constants, seeds=[7, 8])
    assert hits.tolist() == [1, 0] and len(seen) == 3
    changes = [colours - 0.5 for colours in seen]
    assert all((change[~part[:, None].expand(-1, 3, -1, -1)] == 0).all() for change in changes)
    assert all(colours.min() >= 0 and colours.max() <= 1 for colours in seen)
    # Half of the image takes sqrt(2) times the noise of a whole one; clipping at [0, 1] makes it a little less.
    generator = torch.Generator().manual_seed(7)
    for change in changes:
        noise = torch.randn(3, 16, 16, generator=generator) * part[0]
        noise *= NOISE * (3 * 16 * 16) ** 0.5 / noise.square().sum().sqrt()
        torch.testing.assert_close(change[0], noise.clamp(-0.5, 0.5), atol=1e-5, rtol=1e-5)
    assert not torch.equal(changes[0], changes[1])
    seen.clear()
    accuracy_under_noise(model, pixels[1:], part[1:], torch.tensor([2]), *constants, seeds=[8])
    torch.testing.assert_close(seen[0][0] - 0.5, changes[0][1])  # whatever else is in its batch


@pytest.mark.parametrize("labelled", [True, False])
def test_every_image_of_a_benchmark(tmp_path, labelled):
    model, processor = vit(12)
    paths = photographs(tmp_path / "images", count=6)
    masks = box_masks(paths, tmp_path / "masks")
    names = [f"c{index}" for index in range(12)]
    rows = dataset_of(paths, [3, 1, 4, 1, 5, 9], names)
    rows = rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks])
    space = match_classes("toy", names, None, model.config) if labelled else None
    data = BenchmarkData("toy", rows, space, tests_masks=True)
    checkpoint = Checkpoint("tiny", None, model, processor)
    run = BenchmarkRun(checkpoint, data, Accelerator(cpu=True), LoopOptions(4), faithfulness=True)
    assert applies(run) and not applies(BenchmarkRun(checkpoint, data, run.accelerator, run.options))
    images, frame = run.images(squashed=True, with_masks=True), measure(run, measurement(run))
    assert frame["image_id"].tolist() == [path.name for path in paths]
    assert ("foreground_noise" in frame) == ("background_noise" in frame) == labelled

    # Where the upscaled map is flat, rounding decides which of the equal pixels come first: the same rounding here.
    batches = [torch.stack([images[number]["pixel_values"] for number in part]) for part in (range(4), range(4, 6))]
    model.set_attn_implementation("lean")
    maps = torch.cat([explain(model, batch).relevance[:, 0].detach() for batch in batches])
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.25])[:, None, None]
    for number, row in enumerate(frame.itertuples()):
        pixels = images[number]["pixel_values"][None]
        explanation = explain(model, pixels)
        with torch.no_grad():
            wanted = plain_saco(model, pixels[0], maps[number], int(explanation.target))
        assert row.saco == pytest.approx(wanted, abs=1e-3)
        mask = torch.tensor(np.array(Image.open(masks[number]).resize((32, 32), Image.Resampling.NEAREST)) > 0)
        occluded = explain(model, pixels, method="occlusion").patch_relevance
        heat = functional.interpolate(occluded[:, None], size=(32, 32), mode="bilinear", align_corners=False)[0, 0]
        heat = (heat - heat.min()) / (heat.max() - heat.min())
        assert row.relevance_in_mask_occlusion == pytest.approx(float(heat[mask].sum() / heat.sum()), abs=1e-3)
        if labelled:
            colours = pixels[0] * std + mean
            for part, share in ((mask, row.foreground_noise), (~mask, row.background_noise)):
                generator, right = torch.Generator().manual_seed(number), 0
                for _ in range(3):
                    noise = torch.randn(3, 32, 32, generator=generator) * part
                    noise = noise / noise.norm() * 0.25 * (3 * 32 * 32) ** 0.5
                    noisy = ((colours + noise).clamp(0, 1) - mean) / std
                    right += int(model(noisy[None]).logits.argmax() == rows["label"][number])
                assert share == pytest.approx(right / 3)
    assert not labelled or 0 < frame["background_noise"].mean() < 1
