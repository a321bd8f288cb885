"""Backgrounds greyed, filled and swapped, on images whose every pixel is known."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from hf_robustvit.data import SwapBackgrounds, TrainTransform, with_pair_transform
from hf_robustvit.data.background import fill_object, grey_background, swap_background
from hf_robustvit.errors import UserError


RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)


def scene(background=BLUE, thing=RED, size=(64, 48)) -> tuple[Image.Image, Image.Image]:
    image, mask = Image.new("RGB", size, background), Image.new("L", size, 0)
    image.paste(thing, (16, 8, 40, 32))
    mask.paste(255, (16, 8, 40, 32))
    return image, mask


def test_grey_background_keeps_the_object_and_mixes_at_soft_edges():
    image, mask = scene()
    mask.putpixel((0, 0), 51)
    grey = np.asarray(grey_background(image, mask)).astype(int)
    inside = np.asarray(mask) == 255
    assert (grey[inside] == RED).all()
    assert (grey[np.asarray(mask) == 0] == 128).all()
    np.testing.assert_allclose(grey[0, 0], 0.2 * np.array(BLUE) + 0.8 * 128, atol=1)


def test_filling_leaves_no_trace_of_the_object_and_the_background_as_it_was():
    image, mask = scene()
    assert (np.asarray(fill_object(image, mask)) == BLUE).all()
    halves = image.copy()
    halves.paste(GREEN, (0, 0, 28, 48))
    halves.paste(RED, (16, 8, 40, 32))
    filled = np.asarray(fill_object(halves, mask)).astype(int)
    background = np.asarray(mask) == 0
    assert (filled[background] == np.asarray(halves)[background]).all()
    np.testing.assert_allclose(filled[20, 17], GREEN, atol=3)  # the nearest background pixels are green on the left
    np.testing.assert_allclose(filled[20, 38], BLUE, atol=3)
    assert filled[..., 0].max() == 0


def test_an_image_without_background_becomes_grey():
    image, mask = scene()
    mask.paste(255, (0, 0, *mask.size))
    assert (np.asarray(fill_object(image, mask)) == 128).all()


def test_swapping_pastes_the_object_on_a_background_of_any_size():
    image, mask = scene()
    swapped = np.asarray(swap_background(image, mask, Image.new("RGB", (10, 90), GREEN)))
    inside = np.asarray(mask) == 255
    assert (swapped[inside] == RED).all() and (swapped[~inside] == GREEN).all()


@pytest.fixture
def pairs(tmp_path):
    """Red objects on blue, green and white; the pixel (row 0, column 0) tells the background."""
    rows = []
    for number, background in enumerate([BLUE, GREEN, (255, 255, 255)]):
        image, mask = scene(background)
        image.save(tmp_path / f"image{number}.png")
        mask.save(tmp_path / f"mask{number}.png")
        rows.append({"image": str(tmp_path / f"image{number}.png"), "mask": str(tmp_path / f"mask{number}.png")})
        rows[-1] |= {"label": number, "image_id": f"{number}.png"}
    dataset = datasets.Dataset.from_list(rows)
    return dataset.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())


@pytest.fixture
def processor():
    return ViTImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False)


def test_half_of_the_training_images_are_shown_on_the_others_backgrounds(pairs, processor):
    shown = with_pair_transform(pairs, SwapBackgrounds(TrainTransform(processor), pairs))
    torch.manual_seed(0)
    colours = []
    for _ in range(200):
        example = shown[0]
        assert set(example) == {"pixel_values", "mask", "label", "image_id"} and example["label"] == 0
        inside, outside = example["mask"][0] == 1, example["mask"][0] == 0
        for channel, value in zip(example["pixel_values"], RED, strict=True):
            torch.testing.assert_close(channel[inside], torch.full_like(channel[inside], value / 255))
        colours.append(tuple((255 * example["pixel_values"][:, outside].mean(dim=1)).round().int().tolist()))
    counts = [colours.count(colour) for colour in (BLUE, GREEN, (255, 255, 255))]
    assert sum(counts) == 200
    assert counts == pytest.approx([100, 50, 50], abs=20)


def test_torchs_generator_decides_so_that_a_resumed_run_sees_the_same(pairs, processor):
    shown = with_pair_transform(pairs, SwapBackgrounds(TrainTransform(processor), pairs))
    batches = []
    for _ in range(2):
        torch.manual_seed(5)
        batches.append(torch.stack(shown[:]["pixel_values"] + shown[:]["pixel_values"]))
    assert torch.equal(*batches)


def test_one_image_has_no_other_background(pairs, processor):
    with pytest.raises(UserError, match="--swap_backgrounds: there is only one training image"):
        SwapBackgrounds(TrainTransform(processor), pairs.select([0]))
