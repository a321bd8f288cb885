"""Training images whose objects are moved, turned and scaled onto other backgrounds."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import ViTImageProcessorPil

from hf_robustvit.data import RecombineObjects, TrainTransform, with_pair_transform
from hf_robustvit.errors import UserError


RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def save_pair(folder, name: str, background, box: tuple[int, int, int, int]) -> dict:
    image, mask = Image.new("RGB", (80, 60), background), Image.new("L", (80, 60))
    ImageDraw.Draw(image).rectangle(box, fill=RED)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    image.save(folder / f"{name}.png")
    mask.save(folder / f"{name}-mask.png")
    files = {"image": str(folder / f"{name}.png"), "mask": str(folder / f"{name}-mask.png")}
    return files | {"label": 0, "image_id": name}


def shown_of(rows: list[dict], kind=RecombineObjects) -> datasets.Dataset:
    pairs = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    pairs = pairs.cast_column("mask", datasets.Image())
    processor = ViTImageProcessorPil(size={"height": 56, "width": 56}, do_normalize=False)
    return with_pair_transform(pairs, kind(TrainTransform(processor), pairs))


@pytest.fixture
def examples(tmp_path):
    """400 draws of a red square in the middle of blue; the other image is green."""
    shown = shown_of(
        [save_pair(tmp_path, "a", BLUE, (30, 20, 49, 39)), save_pair(tmp_path, "b", GREEN, (9, 9, 39, 39))]
    )
    torch.manual_seed(0)
    return [shown[0] for _ in range(400)]


def described(example: dict) -> tuple[str, float, float, float]:
    """The colour around the object, and the object's share of the image and its centre."""
    mask = example["mask"][0].numpy()
    outside = example["pixel_values"].numpy()[:, mask == 0].mean(axis=1)
    rows, columns = np.nonzero(mask > 0.5)
    return "RGB"[int(outside.argmax())], (mask > 0.5).mean(), rows.mean() / 56, columns.mean() / 56


def test_images_are_shown_as_they_are_swapped_and_moved(examples):
    around, shares, rows, columns = map(np.array, zip(*map(described, examples), strict=True))
    assert (around == "B").mean() == pytest.approx(0.25, abs=0.08)
    # The square has 400 of 4800 pixels, and the crop is 7/8 of the resized image's sides.
    in_place = np.isclose(shares, 400 / 4800 * (64 / 56) ** 2, rtol=0.15)
    in_place &= (abs(rows - 0.5) < 0.1) & (abs(columns - 0.5) < 0.1)
    assert in_place[around == "B"].all()
    assert in_place[around == "G"].mean() == pytest.approx(0.5, abs=0.12)
    moved = (around == "G") & ~in_place
    assert shares[moved].min() < 0.06 and shares[moved].max() > 0.5
    assert min(rows[moved].min(), columns[moved].min()) < 0.25
    assert max(rows[moved].max(), columns[moved].max()) > 0.75


def test_the_mask_moves_with_its_object(examples):
    for example in examples:
        inside, outside = example["mask"][0] == 1, example["mask"][0] == 0
        red, *others = example["pixel_values"]
        assert (red[inside] > 0.98).all() and all((other[inside] < 0.02).all() for other in others)
        assert (red[outside] < 0.02).all()


def test_half_of_the_moved_objects_are_turned(examples):
    upright = []
    for mask in [example["mask"][0].numpy() > 0.5 for example in examples]:
        rows, columns = np.nonzero(mask)
        is_whole = min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 55
        if is_whole and not np.isclose(mask.mean(), 400 / 4800 * (64 / 56) ** 2, rtol=0.15):  # moved, within the crop
            box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            upright.append(mask.sum() > 0.93 * box)
    assert len(upright) > 15
    assert 0.4 < np.mean(upright) < 0.85  # the larger ones are cut off when they are turned, and so not counted


def test_an_object_that_is_cut_off_keeps_its_place(tmp_path):
    shown = shown_of([save_pair(tmp_path, "a", BLUE, (0, 0, 19, 59)), save_pair(tmp_path, "b", GREEN, (9, 9, 39, 39))])
    torch.manual_seed(0)
    for mask in [shown[0]["mask"][0] > 0.5 for _ in range(60)]:
        columns = mask.any(dim=0)
        assert torch.equal(mask, columns.expand_as(mask)) and (columns[0] or columns[-1])


def test_torchs_generator_decides(tmp_path):
    shown = shown_of([save_pair(tmp_path, name, BLUE, (30, 20, 49, 39)) for name in "abc"])
    batches = []
    for _ in range(2):
        torch.manual_seed(3)
        batches.append(torch.stack([shown[row % 3]["pixel_values"] for row in range(12)]))
    assert torch.equal(*batches)


def test_one_image_has_no_other_background(tmp_path):
    with pytest.raises(UserError, match="--recombine_objects: there is only one training image"):
        shown_of([save_pair(tmp_path, "a", BLUE, (30, 20, 49, 39))])
