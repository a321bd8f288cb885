"""The same files are the same pictures in training and in evaluation, whatever they are stored as, or in neither."""

import logging

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTImageProcessorPil

from hf_robustvit.data import EvalTransform, MaskReading, check_pairs
from hf_robustvit.data.transforms import normalization
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.images import BenchmarkImages, segmentation_image_processor


SIDE = 28
# Resizes to 32 and crops the centre of 28, as `EvalTransform` does.
PROCESSOR = ViTImageProcessorPil(
    size={"shortest_edge": 32}, do_center_crop=True, crop_size={"height": SIDE, "width": SIDE}, do_normalize=False
)
OBJECT = np.zeros((32, 32), dtype=np.uint8)
OBJECT[4:16, 8:24] = 1
SEEN = OBJECT[2:30, 2:30]
GREY = np.random.default_rng(0).integers(10, 250, (32, 32), dtype=np.uint8)
DARK = GREY // 250


def rows(image: Image.Image, mask: Image.Image, folder, orientation: int = 1, count: int = 1) -> datasets.Dataset:
    """An image and its mask as files, `count` times."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / ("image.tiff" if image.mode in ("F", "CMYK", "I") else "image.png"), exif=exif)
    mask.save(folder / "mask.png")
    (image_path,) = folder.glob("image.*")
    row = {"image": str(image_path), "mask": str(folder / "mask.png")}
    features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
    entries = [row | {"image_id": f"thing/{number}"} for number in range(count)]
    return datasets.Dataset.from_list(entries, features=datasets.Features(features))


def trained_on(data, reading):
    check_pairs(data, reading=reading)
    example = EvalTransform(PROCESSOR, reading=reading)(
        {column: data.cast_column(column, datasets.Image(decode=False))[column][:1] for column in ("image", "mask")}
        | {"image_id": data["image_id"][:1]}
    )
    return example["pixel_values"][0], example["mask"][0][0]


def evaluated_on(data, reading):
    processor = segmentation_image_processor("checkpoint", PROCESSOR, ViTConfig(image_size=32))
    images = BenchmarkImages(data, processor, with_masks=True, turned=True, reading=reading)
    if reason := images.reason_unreadable(0):
        raise UserError(reason)
    return images[0]["pixel_values"][:, 2:30, 2:30], images[0]["mask"][2:30, 2:30]


def test_a_processor_that_makes_wide_images_of_wide_photos_is_refused(tmp_path):
    data = rows(Image.fromarray(GREY), Image.fromarray(OBJECT), tmp_path)
    with pytest.raises(UserError, match="^--model: its preprocessor_config.json makes wide images of wide photos"):
        BenchmarkImages(data, ViTImageProcessorPil(size={"shortest_edge": 32}))


USES = pytest.mark.parametrize("use", [trained_on, evaluated_on])
NO_FLAGS = MaskReading()


@USES
@pytest.mark.parametrize(
    ("image", "values"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(DARK), DARK),
        (Image.fromarray(GREY).convert("RGB"), GREY),
        (Image.fromarray(GREY).convert("LA"), GREY),
        (Image.fromarray(GREY).convert("RGBA"), GREY),
        (Image.fromarray(GREY).convert("P"), GREY),
        (Image.fromarray(GREY).convert("RGB").convert("CMYK"), GREY),
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
        (Image.fromarray(GREY.astype(np.int32) * 257), GREY),
        (Image.fromarray(GREY.astype(np.uint16)), GREY),
        (Image.fromarray(GREY.astype(np.float32)), GREY),
        (Image.fromarray(GREY.astype(np.float32) / 255), GREY),
        (Image.fromarray(GREY.astype(np.float32) * 257), GREY),
        (Image.fromarray(GREY > 128), 255 * (GREY > 128)),
    ],
)
def test_an_image_of_any_precision_has_its_values(tmp_path, image, values, use):
    pixel_values, _ = use(rows(image, Image.fromarray(OBJECT * 255), tmp_path), NO_FLAGS)
    expected = np.broadcast_to(values[2:30, 2:30], (3, SIDE, SIDE))
    np.testing.assert_allclose(pixel_values.numpy() * 255, expected, atol=1e-3)


def test_a_transparent_image_shows_the_colours_below(tmp_path):
    image = Image.fromarray(np.dstack([GREY, GREY, GREY, 0 * GREY]))
    for use in (trained_on, evaluated_on):
        pixel_values, _ = use(rows(image, Image.fromarray(OBJECT * 255), tmp_path), NO_FLAGS)
        np.testing.assert_allclose(pixel_values[0].numpy() * 255, GREY[2:30, 2:30], atol=1e-3)


@USES
@pytest.mark.parametrize("worst", [-1, 70000, np.nan])
def test_an_image_of_no_known_range_is_refused(tmp_path, worst, use):
    values = GREY.astype(np.float32)
    values[0, 0] = worst
    with pytest.raises(UserError, match="it has values from"):
        use(rows(Image.fromarray(values), Image.fromarray(OBJECT * 255), tmp_path), NO_FLAGS)


BORDER = np.pad(OBJECT[2:-2, 2:-2], 2) * 0
BORDER[3:17, 7:25] = 1
BORDER -= OBJECT
NOISY = np.clip(OBJECT * 255.0 + np.random.default_rng(1).normal(0, 6, OBJECT.shape), 0, 255).astype(np.uint8)
ONE = np.pad(np.uint8([[255]]), ((5, 26), (9, 22)))


@USES
@pytest.mark.parametrize(
    ("mask", "flags"),
    [
        (OBJECT * 2, {}),
        (OBJECT * 255, {}),
        (NOISY, {}),
        (OBJECT + 1, {"mask_foreground": ["2"]}),
        (255 - OBJECT * 255, {"mask_foreground": ["0"]}),
    ],
)
def test_a_mask_marks_its_object(tmp_path, mask, flags, use):
    _, foreground = use(rows(Image.fromarray(GREY), Image.fromarray(mask), tmp_path), MaskReading(**flags))
    np.testing.assert_array_equal(foreground.numpy(), SEEN)


@USES
def test_ignored_pixels_are_neither(tmp_path, use):
    trimap = Image.fromarray(2 - OBJECT + BORDER)  # 1 the object, 2 the background, 3 the border
    reading = MaskReading(mask_foreground=["1"], mask_ignore=["3"])
    _, foreground = use(rows(Image.fromarray(GREY), trimap, tmp_path), reading)
    np.testing.assert_array_equal(foreground.numpy(), np.where(BORDER[2:30, 2:30], -1, SEEN.astype(int)))


@USES
@pytest.mark.parametrize(
    ("mask", "fault"),
    [
        (
            2 - OBJECT + BORDER,
            r"has the values 1, 2, 3, and which of them is the object is not clear: pass",
        ),
        (OBJECT + 1, "has the values 1, 2, and"),
        (ONE, r"marks 0\.0977 % of its image as foreground"),
        (255 + OBJECT * 0, "marks 100 % of its image as foreground"),
        (OBJECT * 0, "marks no pixel as foreground"),
        (OBJECT[::2, ::2] * 255, "is 16x16 pixels, its image .* 32x32 as displayed"),
    ],
)
def test_a_mask_that_marks_no_object_is_refused(tmp_path, mask, fault, use):
    with pytest.raises(UserError, match=fault):
        use(rows(Image.fromarray(GREY), Image.fromarray(mask.astype(np.uint8)), tmp_path), NO_FLAGS)


# How a picture is stored that is displayed upright after the turn that each EXIF orientation asks for.
STORED = {
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    6: np.rot90,
    8: lambda picture: np.rot90(picture, 3),
}


@USES
@pytest.mark.parametrize("orientation", STORED)
def test_a_square_mask_of_a_turned_image_needs_the_flag(tmp_path, orientation, use):
    stored = STORED[orientation]
    image, mask = Image.fromarray(stored(GREY)), OBJECT * 255
    as_stored = rows(image, Image.fromarray(stored(mask)), tmp_path, orientation)
    with pytest.raises(UserError, match="fits its image both as stored and as displayed.*pass --mask_orientation"):
        use(as_stored, NO_FLAGS)
    pixel_values, foreground = use(as_stored, MaskReading(mask_orientation="stored"))
    np.testing.assert_allclose(pixel_values[0].numpy() * 255, GREY[2:30, 2:30], atol=1e-3)
    np.testing.assert_array_equal(foreground.numpy(), SEEN)
    as_displayed = rows(image, Image.fromarray(mask), tmp_path, orientation)
    _, foreground = use(as_displayed, MaskReading(mask_orientation="displayed"))
    np.testing.assert_array_equal(foreground.numpy(), SEEN)


def test_a_mask_that_fits_as_stored_only_is_turned_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    image, mask = np.tile(GREY, (1, 2)), np.tile(OBJECT * 255, (1, 2))
    data = rows(Image.fromarray(np.rot90(image)), Image.fromarray(np.rot90(mask)), tmp_path, orientation=6, count=2)
    _, foreground = trained_on(data, NO_FLAGS)
    assert "2 masks fit their images as stored, and are turned with them." in caplog.text
    np.testing.assert_array_equal(foreground.numpy(), np.tile(OBJECT, (1, 2))[2:30, 18:46])
    images = BenchmarkImages(data, PROCESSOR, with_masks=True, turned=True)
    expected = np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 127
    np.testing.assert_array_equal(images[0]["mask"].numpy(), expected)
    with pytest.raises(UserError, match="is 32x64 pixels, its image .* 64x32 as displayed"):
        trained_on(data, MaskReading(mask_orientation="displayed"))


def test_a_set_of_inverted_masks_is_refused_and_a_few_such_masks_are_not(tmp_path):
    inverted = rows(Image.fromarray(GREY), Image.fromarray(255 - OBJECT * 255), tmp_path, count=4)
    with pytest.raises(UserError, match=r"4 of 4 masks look inverted.*thing/0\): pass --mask_foreground 0 if black"):
        check_pairs(inverted)
    assert check_pairs(inverted.select(range(3))).num_rows == 3
    for value in ("0", "255"):
        assert check_pairs(inverted, reading=MaskReading(mask_foreground=[value])) is inverted


def test_masks_of_the_package_are_taken_as_they_are(tmp_path):
    whole = rows(Image.fromarray(GREY), Image.fromarray(255 + OBJECT * 0), tmp_path, count=5)
    assert check_pairs(whole, reading=None) is whole


def test_a_row_without_a_mask_is_named(tmp_path):
    data = rows(Image.fromarray(GREY), Image.fromarray(OBJECT * 255), tmp_path, count=2)
    masks = [str(tmp_path / "mask.png"), None]
    data = data.remove_columns("mask").add_column("mask", masks).cast_column("mask", datasets.Image())
    with pytest.raises(UserError, match=r"1 mask cannot be read \(first: the mask of thing/1 is missing\)"):
        check_pairs(data)


def test_a_processor_that_does_not_resize_takes_images_as_they_are(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, do_resize=False, do_normalize=False)
    data = rows(Image.fromarray(GREY), Image.fromarray(OBJECT * 255), tmp_path)
    item = BenchmarkImages(data, processor)[0]
    np.testing.assert_allclose(item["pixel_values"][0].numpy() * 255, GREY, atol=1e-3)
    example = EvalTransform(processor)({"image": [Image.fromarray(GREY)], "image_id": ["a"]})
    np.testing.assert_allclose(example["pixel_values"][0][0].numpy() * 255, GREY, atol=1e-3)
    small = rows(Image.fromarray(GREY[:20, :30]), Image.fromarray(OBJECT * 255), tmp_path)
    assert "it is 30x20 pixels, the model takes 32x32" in BenchmarkImages(small, processor).reason_unreadable(0)
    with pytest.raises(UserError, match="a is 30x20 pixels, the model takes 32x32, and its image processor does not"):
        EvalTransform(processor)({"image": [Image.fromarray(GREY[:20, :30])], "image_id": ["a"]})


@pytest.mark.parametrize("normalises", [True, False])
@pytest.mark.parametrize("factor", [1 / 255, 1 / 127.5, None])
def test_every_step_of_a_processor_counts_wherever_it_is_used(normalises, factor):
    rescaling = {"do_rescale": False} if factor is None else {"rescale_factor": factor}
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25], "do_normalize": normalises}
    size = {"size": {"height": 32, "width": 32}}
    processor = ViTImageProcessorPil(**size, **colours, **rescaling)
    image = Image.fromarray(np.dstack([GREY, GREY[::-1], GREY.T]))
    pixel_values = processor(image, return_tensors="pt")["pixel_values"][0].float()
    mean, std = normalization(processor)
    back = 255 * (pixel_values * std + mean)
    np.testing.assert_allclose(back.permute(1, 2, 0).numpy(), np.asarray(image), atol=1e-3)
    squash = segmentation_image_processor("checkpoint", processor, ViTConfig(image_size=32))
    squashed = squash(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(squashed, pixel_values, rtol=1e-4, atol=1e-4)
    crop = EvalTransform(processor, crop_size=28)({"image": [image], "image_id": ["a"]})["pixel_values"][0]
    torch.testing.assert_close(crop, pixel_values[:, 2:30, 2:30], rtol=1e-4, atol=1e-4)
