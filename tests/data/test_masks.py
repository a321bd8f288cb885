"""What masks of every encoding are read as, and which are refused until flags tell."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hf_robustvit.data.masks import MaskReading, UnclearMaskError, fills_border, foreground_mask, read_mask
from hf_robustvit.errors import UserError


OBJECT = np.zeros((40, 60), dtype=bool)
OBJECT[10:25, 12:40] = True
BORDER = np.zeros_like(OBJECT)
BORDER[8:27, 10:42] = True
BORDER &= ~OBJECT


def levels(background: int, inside: int, border: int | None = None) -> np.ndarray:
    """A mask of two values, or of three with a border around the object, as uint8."""
    values = np.where(OBJECT, inside, background)
    return np.where(BORDER, background if border is None else border, values).astype(np.uint8)


def voc(values: np.ndarray, mode: str = "P") -> Image.Image:
    """A mask with Pascal VOC's palette: 255 is the void around an object."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[1, 2, 7, 255]] = [(128, 0, 0), (0, 128, 0), (128, 128, 128), (224, 224, 192)]
    mask = Image.fromarray(values)
    mask.putpalette(palette.tobytes())
    return mask.convert(mode)


def read(mask, **flags) -> tuple[np.ndarray, np.ndarray | None]:
    foreground, ignored = read_mask(mask, MaskReading(**flags))
    return np.asarray(foreground), None if ignored is None else np.asarray(ignored) > 0


@pytest.mark.parametrize("value", [1, 2, 15, 128, 200, 254, 255])
def test_black_and_one_other_value_is_an_object_on_its_background(value):
    for values in (levels(0, value), levels(0, value).astype(np.uint16), levels(0, value).astype(np.float32)):
        assert (np.asarray(foreground_mask(Image.fromarray(values))) == 255 * OBJECT).all()


@pytest.mark.parametrize("mode", ["P", "RGB"])
@pytest.mark.parametrize("value", [1, 2, 7])
def test_the_void_of_voc_is_neither_object_nor_background(mode, value):
    foreground, ignored = read(voc(levels(0, value, 255), mode))
    assert (foreground == 255 * OBJECT).all() and (ignored == BORDER).all()


@pytest.mark.parametrize(
    ("mask", "values"),
    [
        (Image.fromarray(levels(2, 1, 3)), "1, 2, 3"),  # a trimap of the Oxford pets
        (Image.fromarray(levels(2, 1)), "1, 2"),
        (Image.fromarray(levels(100, 200)), "100, 200"),
        (Image.fromarray(levels(0, 255, 128)), "0, 128, 255"),  # a trimap for matting
        (Image.fromarray(levels(0, 15, 255)), "0, 15, 255"),  # VOC without its palette
        (voc(levels(0, 1, 2)), "0, 1, 2"),
        (voc(levels(0, 1, 2), "RGB"), "(0,0,0), (0,128,0), (128,0,0)"),
        (
            Image.fromarray((np.arange(2400).reshape(40, 60) // 240).astype(np.uint8)),
            "0, 1, 2, 3, 4, 5, 6, 7 and 2 more",
        ),
    ],
)
def test_what_is_not_clear_is_refused_with_the_values_and_the_flag(mask, values):
    with pytest.raises(UnclearMaskError) as refusal:
        foreground_mask(mask)
    assert str(refusal.value).startswith(
        f"has the values {values}, and which of them is the object is not clear: pass "
    )
    assert "--mask_foreground" in str(refusal.value) and "--mask_ignore" in str(refusal.value)


@pytest.mark.parametrize(
    ("mask", "foreground", "ignore"),
    [
        (Image.fromarray(levels(2, 1, 3)), "1", "3"),
        (Image.fromarray(levels(0, 255, 128)), "255", "128"),
        (Image.fromarray(levels(0, 15, 255)), "15", "255"),
        (voc(levels(0, 1, 2)), "1", "2"),
        (voc(levels(0, 7, 255)), "7", "255"),
        (voc(levels(0, 1, 2), "RGB"), "128,0,0", "0,128,0"),
        (Image.fromarray(levels(255, 0, 128)), "0", "128"),
    ],
)
def test_flags_tell_what_is_object_and_what_is_neither(mask, foreground, ignore):
    mask, ignored = read(mask, mask_foreground=[foreground], mask_ignore=[ignore])
    assert (mask == 255 * OBJECT).all() and (ignored == BORDER).all()


def test_several_values_may_be_object():
    mask, ignored = read(Image.fromarray(levels(2, 1, 3)), mask_foreground=["1", "3"])
    assert (mask == 255 * (OBJECT | BORDER)).all() and ignored is None
    void_as_object, ignored = read(voc(levels(0, 1, 255)), mask_foreground=["1", "255"])
    assert (void_as_object == mask).all() and ignored is None
    with pytest.raises(UnclearMaskError, match="has the values 1, 2, and"):
        read(Image.fromarray(levels(2, 1, 3)), mask_ignore=["3"])


def test_inverted_masks_are_turned_over_by_their_flag():
    inverted = Image.fromarray(levels(255, 0))
    assert fills_border(foreground_mask(inverted)) and not fills_border(Image.fromarray(levels(0, 255)))
    assert (read(inverted, mask_foreground=["0"])[0] == 255 * OBJECT).all()
    soft = inverted.filter(ImageFilter.GaussianBlur(2))
    np.testing.assert_array_equal(read(soft, mask_foreground=["0"])[0], 255 - np.asarray(soft))
    np.testing.assert_array_equal(read(soft, mask_foreground=["255"])[0], np.asarray(soft))


@pytest.mark.parametrize("quality", [95, 75, 30])
def test_noise_of_jpeg_is_cut_at_half(tmp_path, quality):
    Image.fromarray(levels(0, 255)).save(tmp_path / "mask.jpg", quality=quality)
    noisy = Image.open(tmp_path / "mask.jpg")
    assert len(np.unique(np.asarray(noisy))) > 2
    mask = np.asarray(foreground_mask(noisy))
    assert set(np.unique(mask)) == {0, 255} and ((mask > 0) != OBJECT).mean() < 0.01


@pytest.mark.parametrize("scale", [1, 257])
def test_soft_edges_stay_soft(scale):
    shape = Image.fromarray(levels(0, 255)).rotate(10, Image.Resampling.BILINEAR)
    for soft in (shape, shape.resize((33, 22), Image.Resampling.BILINEAR), shape.filter(ImageFilter.GaussianBlur(3))):
        values = np.asarray(soft)
        assert len(np.unique(values)) > 3
        stored = Image.fromarray(values.astype(np.uint16) * scale) if scale > 1 else soft
        np.testing.assert_array_equal(np.asarray(foreground_mask(stored)), values)


def test_values_that_are_none_are_refused():
    for value in ("object", "-1", "70000", "1,2", "300,0,0"):
        with pytest.raises(UserError, match=f"--mask_ignore: '{value}' is neither a grey value or palette index"):
            MaskReading(mask_ignore=[value])
    with pytest.raises(UserError, match="--mask_foreground and --mask_ignore both have 3"):
        MaskReading(mask_foreground=["1", "3"], mask_ignore=["3"])
