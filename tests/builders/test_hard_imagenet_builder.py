"""Hard ImageNet in its official layout, and accuracy without the object."""

import numpy as np
import pytest
import torch
from official_layouts import evaluate_set, save_image
from PIL import Image
from planted_benchmarks import box_masks, photographs, plain_logits, vit

from hf_robustvit.builders import benchmark_names, load_benchmark
from hf_robustvit.builders.hard_imagenet import CLASSES
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import NAMES, WNIDS


@pytest.fixture
def folder(tmp_path):
    """Two masked images of different classes, and an image of a class that the set lacks."""
    for wnid, name in ((CLASSES[1], "ILSVRC2012_val_00000002.JPEG"), (CLASSES[0], "ILSVRC2012_val_00000001.JPEG")):
        save_image(tmp_path / "val" / wnid / name)
        save_image(tmp_path / "hardImageNet" / "val" / f"{wnid}_{name}", mode="L")
    save_image(tmp_path / "val" / WNIDS[0] / "ILSVRC2012_val_00000003.JPEG")
    return tmp_path


def load(folder):
    return load_benchmark("hard-imagenet", str(folder), str(folder / "cache"))


def test_the_fifteen_classes():
    assert {NAMES[WNIDS.index(wnid)] for wnid in CLASSES} == {
        *(
            "ballplayer",
            "howler monkey",
            "balance beam",
            "bathing cap",
            "dogsled",
            "horizontal bar",
            "miniskirt",
            "patio",
        ),
        *("puck", "seat belt", "ski", "snorkel", "space bar", "sunglasses", "volleyball"),
    }
    assert "hard-imagenet" not in benchmark_names(["all"], for_imagenet=True)


def test_rows(folder):
    rows = load(folder)
    assert rows.features["label"].names == CLASSES and rows["label"][:] == [0, 1]
    assert rows["image_id"][0] == f"{CLASSES[0]}/ILSVRC2012_val_00000001.JPEG"


def test_all_that_is_not_black_is_the_object(folder):
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[2:4, 3:5] = 1
    Image.fromarray(np.stack([mask] * 3, axis=2)).save(folder / "hardImageNet" / "val" / f"{CLASSES[0]}_a.png")
    save_image(folder / "val" / CLASSES[0] / "a.png")
    row = next(row for row in load(folder) if row["image_id"].endswith("a.png"))
    assert np.array_equal(np.asarray(row["mask"]), 255 * mask)


def test_masks_without_images_are_counted(folder):
    save_image(folder / "hardImageNet" / "val" / f"{WNIDS[0]}_ILSVRC2012_val_00000003.JPEG")
    save_image(folder / "hardImageNet" / "val" / f"{CLASSES[2]}_lost.JPEG")
    with pytest.raises(
        UserError, match=rf"2 of 4 masks in .* have no image .*val \(first: {WNIDS[0]}_ILSV.* both in the"
    ):
        load(folder)
    (folder / "hardImageNet" / "val" / f"{CLASSES[0]}_ILSVRC2012_val_00000001.JPEG").write_bytes(b"no picture")
    for name in (f"{WNIDS[0]}_ILSVRC2012_val_00000003.JPEG", f"{CLASSES[2]}_lost.JPEG"):
        (folder / "hardImageNet" / "val" / name).unlink()
    with pytest.raises(UserError, match="hard-imagenet: the mask .*00000001.JPEG cannot be read"):
        load(folder)


def test_a_folder_without_its_masks(folder):
    (folder / "hardImageNet").rename(folder / "elsewhere")
    with pytest.raises(
        UserError, match="has no folder hardImageNet/val with masks. Expected hardImageNet/val/<wnid>_"
    ):
        load(folder)


def prepared(picture: Image.Image) -> np.ndarray:
    """A picture as the paper's preprocessing shows it to a model of 32 pixels: (32, 32, channels) in [0, 1]."""
    width, height = picture.size
    size = (37, int(37 * height / width)) if width <= height else (int(37 * width / height), 37)
    left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
    cropped = picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 32, top + 32))
    return np.asarray(cropped) / 255


@torch.no_grad()
def test_accuracy_without_the_object_equals_an_independent_loop(tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    paths = photographs(tmp_path / "made", 24)
    masks = box_masks(paths, tmp_path / "masks")
    indices = [WNIDS.index(wnid) for wnid in CLASSES]
    # Only these classes compete in the model, so that its guesses are often right.
    outside = [index for index in range(1000) if index not in indices]
    checkpoint.model.classifier.bias[outside] = -100
    wnid_of = plain_logits(checkpoint.model, paths, "paper").argmax(axis=1)
    hits = {"object": [], "box": []}
    for number, (path, mask) in enumerate(zip(paths, masks, strict=True)):
        # The shape of an L, whose box is larger than it.
        shape = 255 * (np.asarray(Image.open(mask)) > 0).astype(np.uint8)
        rows, columns = np.where(shape)
        shape[: (rows.min() + rows.max() + 1) // 2, (columns.min() + columns.max() + 1) // 2 :] = 0
        wnid = WNIDS[wnid_of[number]]
        for picture, target in (
            (Image.fromarray(shape), tmp_path / "hardImageNet" / "val" / f"{wnid}_{path.stem}.png"),
            (Image.open(path), tmp_path / "val" / wnid / f"{path.stem}.png"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.convert("RGB").save(target)
        image = prepared(Image.open(tmp_path / "val" / wnid / f"{path.stem}.png").convert("RGB"))
        inside = prepared(Image.fromarray(shape).convert("RGB"))[:, :, 0] > 0
        rows, columns = np.where(inside)
        box = np.zeros_like(inside)
        if len(rows):
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        for kind, hidden in (("object", inside), ("box", box)):
            changed = np.where(hidden[:, :, None], 0.5, image)
            pixels = torch.from_numpy((changed - 0.5) / 0.5).permute(2, 0, 1)[None].float()
            hits[kind].append(int(checkpoint.model(pixels).logits[0].argmax()) == wnid_of[number])
    result, frame = evaluate_set("hard-imagenet", tmp_path, checkpoint)
    assert result.top1 == 100 and 0 < np.mean(hits["box"]) < 1
    assert result.top1_grey_object == pytest.approx(100 * np.mean(hits["object"]))
    assert result.top1_grey_box == pytest.approx(100 * np.mean(hits["box"]))
    assert result.relevance_in_mask is not None and len(frame) == 24
