"""Composites: which objects are taken, and that they land where they should, on backgrounds that stay as they are."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from hf_robustvit.data import PairError
from hf_robustvit.data.composites import (
    GRIDS,
    CompositeRenderer,
    choose_backgrounds,
    object_box,
    object_fault,
    paste,
)


SIZE = (96, 128)  # height, width


def mask_of(*boxes, size=(100, 100)) -> Image.Image:
    mask = Image.new("L", size)
    for box in boxes:
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


@pytest.mark.parametrize(
    "mask, fault",
    [
        (mask_of((30, 30, 69, 69)), None),
        (mask_of((30, 30, 43, 42)), "too_small"),  # 182 of 10,000
        (mask_of((30, 30, 44, 43)), None),  # 210
        (mask_of((5, 5, 94, 94)), "too_large"),
        (mask_of((10, 10, 49, 49), (60, 60, 68, 69)), "in_pieces"),  # 1600 and 90: the largest has 94.7 %
        (mask_of((10, 10, 49, 49), (60, 60, 67, 69)), None),  # 80: 95.2 %
        (mask_of((0, 30, 39, 69)), "cut_off"),
        (mask_of((30, 60, 69, 99)), "cut_off"),
        (mask_of((0, 30, 39, 33), (5, 20, 44, 59)), None),  # 4 of about 160 pixels of outline
        (mask_of((30, 30, 69, 69)).filter(ImageFilter.GaussianBlur(1)), None),
        (mask_of((30, 30, 69, 69)).filter(ImageFilter.GaussianBlur(4)), "blurred"),
        (mask_of((300, 300, 699, 699), size=(1000, 1000)).filter(ImageFilter.GaussianBlur(4)), None),
    ],
)
def test_the_rule_for_objects(mask, fault):
    assert object_fault(mask) == fault


def corners(layer: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel of an object, and the one after its last, as (x, y)."""
    rows, columns = np.nonzero(np.asarray(layer.getchannel("A")) > 127)
    return np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("factor", ["location", "size"])
@pytest.mark.parametrize("sides", [(60, 30), (23, 50), (400, 400)])
def test_places_and_areas_are_those_asked_for_to_a_pixel(factor, sides):
    height, width = SIZE
    for goes in GRIDS[factor].values():
        first, end = corners(paste(Image.new("RGBA", sides, "red"), SIZE, **goes))
        assert np.abs((first + end) / 2 - np.array([goes["x"] * width, goes["y"] * height])).max() <= 0.5
        side = (goes["area"] * width * height) ** 0.5
        # The largest square of a flat image reaches beyond it.
        expected = np.minimum(np.array(sides) * side / max(sides), [width, height])
        assert np.abs((end - first) - expected).max() <= 1


def test_angles_are_those_asked_for():
    # An arm from the centre of the object to the right, the other half is of another colour.
    cutout = Image.new("RGBA", (80, 8), "blue")
    cutout.paste((255, 0, 0, 255), (40, 0, 80, 8))
    for angle, goes in GRIDS["rotation"].items():
        layer = np.asarray(paste(cutout, (200, 200), **goes)).astype(float)
        weights = layer[..., 3]
        rows, columns = np.mgrid[:200, :200] + 0.5
        centre = np.average(columns, weights=weights), np.average(rows, weights=weights)
        assert np.abs(np.array(centre) - 100).max() <= 0.6
        red = weights * (layer[..., 0] > 127)
        arm = np.average(columns, weights=red) - centre[0], centre[1] - np.average(rows, weights=red)
        assert abs((np.degrees(np.arctan2(*arm[::-1])) - angle + 180) % 360 - 180) < 1
        # As large as upright: the object's square covers this share of the image.
        assert weights.sum() / 255 == pytest.approx(goes["area"] * 200 * 200 / 10, rel=0.03)


def test_edges_are_antialiased():
    layer = paste(Image.new("RGBA", (40, 40), "red"), (100, 100), area=0.2, rotation=30, x=0.5, y=0.5)
    alpha = np.asarray(layer.getchannel("A"))
    assert ((alpha > 25) & (alpha < 230)).sum() > 100
    # Colours do not mix with what was around the object.
    assert (np.asarray(layer)[alpha > 25][:, :3] == (255, 0, 0)).all()


@pytest.fixture
def row(tmp_path):
    """A photo of a red object of 20x10 pixels and a stray pixel, a background, and a photo to take one from."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(100, 200, (60, 90, 3), dtype=np.uint8))
    photo.paste("red", (30, 20, 50, 30))
    mask = mask_of((30, 20, 49, 29), (80, 50, 80, 50), size=(90, 60))
    other = Image.new("RGB", (120, 90), "green")
    other.paste("blue", (40, 30, 80, 60))
    other_mask = mask_of((42, 32, 77, 57), size=(120, 90))
    noise = Image.fromarray(rng.integers(0, 256, (150, 250, 3), dtype=np.uint8))
    for name, picture in {
        "photo": photo,
        "mask": mask,
        "other": other,
        "other_mask": other_mask,
        "noise": noise,
    }.items():
        picture.save(tmp_path / f"{name}.png")
    files = {name: {"path": str(tmp_path / f"{name}.png"), "bytes": None} for name in ("mask",)}
    return files | {
        "image": {"path": str(tmp_path / "photo.png"), "bytes": None},
        "background_image": str(tmp_path / "noise.png"),
        "background_mask": None,
        "factor": "location",
        **GRIDS["location"]["0.25,0.75"],
    }


def test_the_background_is_untouched_outside_the_object(row, tmp_path):
    pair = CompositeRenderer()(row, SIZE)
    image, alpha = np.asarray(pair.image), np.asarray(pair.mask)
    with Image.open(tmp_path / "noise.png") as noise:
        background = np.asarray(ImageOps.fit(noise, SIZE[::-1], Image.Resampling.BILINEAR))
    assert image.shape == (*SIZE, 3) and (image[alpha == 0] == background[alpha == 0]).all()
    assert (image[alpha == 255] == (255, 0, 0)).all()
    side = (0.2 * 96 * 128) ** 0.5
    assert (alpha > 127).sum() == round(side) * round(side / 2)  # without the stray pixel


def test_another_photo_is_a_background_without_its_object(row, tmp_path):
    row |= {"background_image": str(tmp_path / "other.png"), "background_mask": str(tmp_path / "other_mask.png")}
    pair = CompositeRenderer()(row, SIZE)
    around = np.asarray(pair.image)[np.asarray(pair.mask) == 0]
    assert (around[:, 2] < 30).all() and (around == (0, 128, 0)).all(axis=1).mean() > 0.8


def test_the_object_stays_where_it_is_where_the_background_is_the_factor(row, tmp_path):
    pair = CompositeRenderer()(row | {"factor": "background"}, (60, 90))
    with Image.open(tmp_path / "mask.png") as mask:
        mask.paste(0, (80, 50, 81, 51))
        assert np.array_equal(np.asarray(pair.mask), np.asarray(mask))
        assert object_box(mask) == {
            "area": pytest.approx((20 / 90) ** 2),
            "rotation": 0.0,
            "x": pytest.approx(40 / 90),
            "y": pytest.approx(25 / 60),
        }
    pair = CompositeRenderer()(row | {"factor": "background"}, (120, 180))
    first, end = corners(Image.merge("RGBA", (*pair.image.split(), pair.mask)))
    assert first.tolist() == [60, 40] and end.tolist() == [100, 60]


def test_a_row_gives_the_same_bytes_whatever_was_rendered_before(row):
    other = row | {"rotation": 30.0, "factor": "rotation"}
    used = CompositeRenderer()
    pictures = [used(one, SIZE) for one in (row, other, row | {"factor": "background"}, row)]
    for pair in (pictures[3], CompositeRenderer()(row, SIZE)):
        assert (
            pair.image.tobytes() == pictures[0].image.tobytes() and pair.mask.tobytes() == pictures[0].mask.tobytes()
        )


def test_a_broken_background_is_named(row, tmp_path):
    (tmp_path / "noise.png").write_text("no picture")
    with pytest.raises(PairError, match="noise.png is not a picture"):
        CompositeRenderer()(row, SIZE)


def test_backgrounds_depend_on_names_alone():
    names = [f"{number}.jpg" for number in range(40)]
    chosen = choose_backgrounds("cat/1.jpg", names, 4)
    assert len(set(chosen)) == 4 and choose_backgrounds("cat/1.jpg", names, 1) == chosen[:1]
    assert sorted(choose_backgrounds("cat/1.jpg", names[:3], 4)) == [0, 1, 2]
    # Without one of the chosen the others stay, and one more comes after them; the folder's order does not matter.
    fewer = [name for name in reversed(names) if name != names[chosen[1]]]
    again = [fewer[position] for position in choose_backgrounds("cat/1.jpg", fewer, 4)]
    assert again[:3] == [names[position] for position in (chosen[0], *chosen[2:])]
    counts = np.bincount([choose_backgrounds(str(number), names, 1)[0] for number in range(4000)], minlength=40)
    assert 60 < counts.min() and counts.max() < 145  # 100 each, give or take four deviations
