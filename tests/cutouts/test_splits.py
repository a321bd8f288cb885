import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hf_robustvit.cutouts import BENCHMARK_SPLITS, CLASS_NAMES, SPLITS, STYLES, USUAL_SCENES, render
from hf_robustvit.cutouts.assets import load_cutouts, objects_of_classes
from hf_robustvit.cutouts.scenes import SCENES
from hf_robustvit.cutouts.splits import LOCATIONS, NEW_STYLES, ROTATIONS, SIDES, new_objects, paste, training_objects
from hf_robustvit.errors import UserError


DIGESTS = json.loads(Path(__file__).with_name("digests.json").read_text())


def pixels(split, index):
    rendered = render(split, index)
    return np.asarray(rendered.image), np.asarray(rendered.mask)


def usual_share(split, count=300):
    rendered = [render(split, index) for index in range(count)]
    return np.mean([image.scene == USUAL_SCENES[CLASS_NAMES[image.label]] for image in rendered])


def test_assets_are_whole():
    cutouts = load_cutouts()
    assert len(cutouts) == 836
    assert sum(map(len, objects_of_classes().values())) == 209
    assert {style for style, _, _ in cutouts} == set(STYLES)
    assert set(USUAL_SCENES.values()) == set(SCENES) and set(Counter(USUAL_SCENES.values()).values()) == {3}
    assert CLASS_NAMES == tuple(sorted(CLASS_NAMES)) and len(CLASS_NAMES) == 30


@pytest.mark.parametrize("split", SPLITS)
def test_pixels_never_change(split):
    """The digests were written when VERSION was set; a change of pixels needs a new VERSION and new digests."""
    digest = hashlib.sha256()
    for index in (7, 0, 1234):
        image, mask = pixels(split, index)
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64)
        assert image.dtype == mask.dtype == np.uint8
        digest.update(image.tobytes() + mask.tobytes())
    assert digest.hexdigest() == DIGESTS[split]


def test_pixels_do_not_depend_on_what_was_rendered_before():
    image, mask = pixels("viewpoint", 11)
    render("viewpoint", 3), render("a", 11)
    image_again, mask_again = pixels("viewpoint", 11)
    np.testing.assert_array_equal(image, image_again)
    np.testing.assert_array_equal(mask, mask_again)


def test_splits_share_no_image():
    images = [pixels(split, index)[0].tobytes() for split in SPLITS for index in range(12)]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("split", BENCHMARK_SPLITS)
def test_benchmarks_are_large_and_balanced(split):
    num_grid_points = len(SPLITS[split].grid)
    assert SPLITS[split].num_images >= 1500
    assert SPLITS[split].num_images % (30 * num_grid_points) == 0
    labels = [render(split, index * num_grid_points).label for index in range(60)]
    assert set(Counter(labels).values()) == {2}


def test_scene_contradicts_class_in_a():
    assert usual_share("a", SPLITS["a"].num_images) == 0


@pytest.mark.parametrize("split", ["val", "v2", "train", "segmentation"])
def test_scene_fits_class_in_biased_splits(split):
    assert 0.94 <= usual_share(split) <= 1


@pytest.mark.parametrize("split", ["viewpoint", "r", "pretrain"])
def test_scene_is_random(split):
    assert 0.04 <= usual_share(split) <= 0.17


def test_styles_and_objects_are_held_out():
    for split in SPLITS:
        rendered = [render(split, index * len(SPLITS[split].grid)) for index in range(90)]
        styles, objects = {image.style for image in rendered}, {image.object for image in rendered}
        held_out = {name for class_name in CLASS_NAMES for name in new_objects(class_name)}
        assert (styles == set(NEW_STYLES)) if split == "r" else styles.isdisjoint(NEW_STYLES)
        assert (objects <= held_out) if split == "v2" else objects.isdisjoint(held_out)
    for class_name in CLASS_NAMES:
        assert new_objects(class_name) and len(training_objects(class_name)) >= 4
        assert {*new_objects(class_name), *training_objects(class_name)} == {*objects_of_classes()[class_name]}


def test_sketches_are_grey_edges_on_white():
    for index in range(30):
        rendered = render("sketch", index)
        image, mask = np.asarray(rendered.image).astype(int), np.asarray(rendered.mask)
        assert rendered.scene == "white"
        assert (image == image[..., :1]).all()
        near = np.asarray(rendered.mask.filter(ImageFilter.MaxFilter(5))) > 0
        assert (image[~near] == 255).all()
        assert image.min() < 120 and (image[mask == 255] > 200).mean() > 0.2


def test_mask_is_where_the_object_is():
    """Images of one location grid share their scene, so that the median over them is the scene uncovered."""
    images, masks = zip(*(pixels("location", index) for index in range(len(LOCATIONS))), strict=True)
    images, masks = np.stack(images).astype(int), np.stack(masks)
    scene = np.median(images, axis=0)
    differs = np.abs(images - scene).max(-1) > 0
    assert not differs[masks == 0].any()
    assert differs[masks == 255].mean() > 0.9
    for image, mask in zip(images, masks, strict=True):
        inside = np.asarray(mask) > 250
        assert inside.sum() > 20
        assert np.abs(image - scene)[inside].mean() > 10


@pytest.mark.parametrize(
    "split, attribute, values",
    [
        ("location", "location", LOCATIONS),
        ("rotation", "rotation", ROTATIONS),
        ("size", "area", tuple((side / 64) ** 2 for side in SIDES)),
    ],
)
def test_grid_varies_one_factor(split, attribute, values):
    grid = [render(split, 2 * len(values) + position) for position in range(len(values))]
    assert [getattr(image, attribute) for image in grid] == list(values)
    fixed = {"style", "object", "label", "scene", "area", "rotation", "location"} - {attribute}
    for name in fixed:
        assert len({getattr(image, name) for image in grid}) == 1, name
    assert SPLITS[split].num_images % len(values) == 0


def test_area_is_that_of_the_bounding_square():
    for index in range(len(SIDES)):
        rendered = render("size", index)
        box = rendered.mask.getbbox()
        if box[0] > 0 and box[1] > 0 and box[2] < 64 and box[3] < 64:
            assert max(box[2] - box[0], box[3] - box[1]) ** 2 / 64**2 == pytest.approx(rendered.area, rel=0.25)


def test_rotation_is_counter_clockwise():
    cutout = Image.new("RGBA", (40, 40))
    cutout.paste("red", (0, 0, 20, 20))
    upright, turned = (np.asarray(paste(cutout, 32, rotation, (0.5, 0.5))) for rotation in (0, 90))
    assert upright[16:30, 16:30, 3].min() == 255 and upright[34:, 34:, 3].max() == 0
    np.testing.assert_array_equal(turned, np.rot90(upright))


def test_unknown_split_names_the_nearest():
    with pytest.raises(UserError, match="no 'viewpont'.*viewpoint"):
        render("viewpont", 0)


def test_negative_index_is_refused():
    with pytest.raises(UserError, match="-1 is negative"):
        render("val", -1)
