"""From images to masks: known objects, no object, one colour, and extreme sizes."""

import tracemalloc

import numpy as np
import pytest
from mask_images import colour_features, photograph, save_backbone
from PIL import Image

from hf_robustvit.data.regions import intersection_over_union
from hf_robustvit.errors import UserError
from hf_robustvit.masks.backbone import Backbone
from hf_robustvit.masks.quality import QualityGate
from hf_robustvit.masks.tokencut import TokenCut, TokenCutOptions


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return str(save_backbone(tmp_path_factory.mktemp("backbone")))


@pytest.fixture
def by_colour(monkeypatch):
    monkeypatch.setattr(Backbone, "key_features", colour_features)


def masks(backbone, images, **options):
    options = {"image_size": 160, "sigma_spatial": 8, **options}
    tokencut = TokenCut(TokenCutOptions(backbone=backbone, **options))
    return tokencut([tokencut.prepare(image) for image in images], [str(n) for n in range(len(images))])


def test_a_known_object_in_images_of_several_sizes(backbone, by_colour):
    sizes = [(80, 60), (60, 80), (80, 60), (333, 250)]
    pairs = [photograph(seed, size) for seed, size in enumerate(sizes)]
    found = masks(backbone, [image for image, _ in pairs])
    for mask, (image, truth) in zip(found, pairs, strict=True):
        assert mask.image.size == image.size and mask.image.mode == "L"
        assert set(np.unique(mask.image)) == {0, 255}
        assert intersection_over_union(np.asarray(mask.image) > 0, np.asarray(truth) > 0) > 0.9
        assert QualityGate().reason(mask.scores) is None
        assert mask.scores.area == pytest.approx(0.25, abs=0.03)


def test_noise_without_an_object_is_rejected(backbone):
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    even = Image.fromarray((np.asarray(noise) // 40 + 90).astype(np.uint8))
    for mask in masks(backbone, [Image.fromarray(noise), even], sigma_spatial=16):
        reason = QualityGate().reason(mask.scores)
        assert reason is not None, mask.scores


def test_one_colour_is_a_problem_of_its_own(backbone):
    (mask,) = masks(backbone, [Image.new("RGB", (70, 50), (10, 200, 30))])
    assert mask.problem == "the image has one colour"
    assert mask.scores is None and mask.image.size == (70, 50) and not np.asarray(mask.image).any()


@pytest.mark.parametrize("size", [(1, 60), (60, 1), (1, 1), (2, 3)])
def test_images_of_one_pixel(backbone, size):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    (mask,) = masks(backbone, [image])
    assert mask.image.size == size


def test_a_wide_image_takes_no_more_memory_than_its_pixels(backbone, by_colour):
    pixels = np.random.default_rng(0).integers(0, 40, (500, 8000, 3), dtype=np.uint8)
    pixels[:, 3000:4500] += 180
    image, truth = Image.fromarray(pixels), np.zeros((500, 8000), dtype=bool)
    truth[:, 3000:4500] = True
    tokencut = TokenCut(TokenCutOptions(backbone=backbone, image_size=240, sigma_spatial=8))
    assert tokencut.prepare(image).pixels.size == (240, 16)
    tracemalloc.start()
    (mask,) = tokencut([tokencut.prepare(image)], ["wide"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # its patches at full size would make a graph of 62500 x 62500
    assert mask.image.size == (8000, 500)
    assert intersection_over_union(np.asarray(mask.image) > 0, truth) > 0.9


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"image_size": 20}, "--image_size: 20 pixels hold fewer than 3 patches of .*; give 24 or more"),
        ({"sigma_luma": 0}, "--sigma_luma must be positive, found 0"),
        ({"tau": 1.2}, r"--tau is a cosine and must be in \[-1, 1\), found 1.2"),
    ],
)
def test_options_that_do_not_fit(backbone, options, sentence):
    with pytest.raises(UserError, match=sentence):
        TokenCut(TokenCutOptions(backbone=backbone, **options))
