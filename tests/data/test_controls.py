"""The masks of the controls: what they cover, what they depend on, and whose they are."""

import datasets
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from hf_robustvit.data import control_masks, read_pair
from hf_robustvit.data.controls import MASK_CONTROLS, draw_others, draw_sets_of_others
from hf_robustvit.errors import UserError


@pytest.fixture
def pairs(tmp_path):
    """Images of several sizes with a box each, of 5 to 40 % of the area; the second is displayed turned."""
    rng, rows = np.random.default_rng(0), []
    for number, (width, height) in enumerate([(64, 64), (40, 80), (90, 50), (64, 64), (33, 47)]):
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        image, mask = tmp_path / f"{number}.jpg", tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image, exif=exif)
        size = (height, width) if number == 1 else (width, height)
        box = np.zeros(size[::-1], dtype=np.uint8)
        box[5 : 5 + size[1] // 3, 4 : 10 + size[0] * (number + 1) // 8] = 255
        Image.fromarray(box).save(mask)
        rows.append({"image": str(image), "mask": str(mask), "label": number, "image_id": f"{number}.jpg"})
    dataset = datasets.Dataset.from_list(rows)
    return dataset.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())


def masks_of(pairs) -> list[np.ndarray]:
    return [np.asarray(read_pair(row)[1]) for row in pairs]


@pytest.mark.parametrize("control", MASK_CONTROLS)
def test_only_the_masks_change_and_fit_the_images(pairs, control):
    changed = control_masks(pairs, control, seed=0)
    assert set(changed.column_names) == set(pairs.column_names)
    assert changed["image_id"][:] == pairs["image_id"][:] and changed["label"][:] == pairs["label"][:]
    for row, original in zip(changed, pairs, strict=True):
        (image, _), (unchanged, _) = read_pair(row), read_pair(original)  # refuses a mask of another size
        assert np.array_equal(np.asarray(image), np.asarray(unchanged))


def test_random_masks_have_the_same_area_and_know_nothing_of_the_object(pairs):
    own, random = masks_of(pairs), masks_of(control_masks(pairs, "random", seed=0))
    for before, after in zip(own, random, strict=True):
        assert set(np.unique(after)) == {0, 255}
        assert (after > 0).sum() == (before > 0).sum()
        _, blobs = label(after)
        assert blobs < 20, "blobs, not single pixels"
    same_size = [number for number in range(5) if own[number].shape == (64, 64)]
    first, second = (random[number] > 0 for number in same_size)
    assert (first & second).sum() < 0.9 * min(first.sum(), second.sum()), "each image has noise of its own"
    # Over many draws a random mask meets the object as often as the area says.
    meetings = [
        (masks_of(control_masks(pairs.select([0]), "random", seed))[0] > 0)[own[0] > 0].mean() for seed in range(60)
    ]
    assert np.mean(meetings) == pytest.approx((own[0] > 0).mean(), abs=0.05)


def test_random_masks_depend_on_seed_and_name_alone(pairs):
    first = masks_of(control_masks(pairs, "random", seed=1))
    again = masks_of(control_masks(pairs.select([3, 0]), "random", seed=1))
    other = masks_of(control_masks(pairs, "random", seed=2))
    assert np.array_equal(again[0], first[3]) and np.array_equal(again[1], first[0])
    assert not any(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_a_soft_mask_counts_by_its_mean(pairs, tmp_path):
    ramp = np.tile(np.linspace(0, 102, 64).round().astype(np.uint8), (64, 1))  # 51 on average
    Image.fromarray(ramp).save(tmp_path / "0.png")
    assert (masks_of(control_masks(pairs.select([0]), "random", seed=0))[0] > 0).mean() == pytest.approx(0.2, abs=1e-3)


def test_a_box_is_the_least_that_holds_the_mask(pairs, tmp_path):
    pixels = np.zeros((64, 64), dtype=np.uint8)
    pixels[10, 20], pixels[30, 15], pixels[12, 40] = 255, 3, 128
    Image.fromarray(pixels).save(tmp_path / "0.png")
    box, *_ = masks_of(control_masks(pairs, "box", seed=0))
    wanted = np.zeros_like(pixels)
    wanted[10:31, 15:41] = 255
    assert np.array_equal(box, wanted)


def test_whole_masks_mark_everything(pairs):
    assert all((mask == 255).all() for mask in masks_of(control_masks(pairs, "whole", seed=0)))


def test_every_image_gets_the_mask_of_another_one(pairs):
    originals = [read_pair(row)[1] for row in pairs]
    givers = []
    for number, mask in enumerate(masks_of(control_masks(pairs, "other", seed=3))):
        size = mask.shape[::-1]
        stretched = [np.asarray(original.resize(size, Image.Resampling.BILINEAR)) for original in originals]
        givers.append(next(index for index, other in enumerate(stretched) if np.array_equal(other, mask)))
        assert givers[-1] != number
    assert sorted(givers) == [0, 1, 2, 3, 4]


def test_others_are_of_another_group_wherever_there_are_enough():
    for seed in range(20):
        groups = np.random.default_rng(seed).permutation([0] * 5 + [1] * 4 + [2])
        others = draw_others(groups, seed)
        assert sorted(others) == list(range(10)) and (groups[others] != groups).all()
    assert (draw_others(range(7), 0) != draw_others(range(7), 1)).any()
    majority = np.array([0, 0, 0, 0, 1])
    others = draw_others(majority, 0)
    assert sorted(others) == list(range(5)) and (others != np.arange(5)).all()
    assert (draw_others([4, 4, 4], 0) != np.arange(3)).all()
    assert draw_others([4], 0).tolist() == [0]


@pytest.mark.parametrize("sizes", [[1] * 20, [2] * 6, [3, 1, 2] * 4, [4, 4, 1, 5, 3, 4, 4]])
def test_sets_of_others_are_of_different_groups_where_none_has_too_large_a_share(sizes):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    sets = draw_sets_of_others(groups, 4, seed=0)
    assert all(sorted(others) == list(range(len(groups))) for others in sets)
    for row, group in enumerate(groups):
        assert len({group, *groups[sets[:, row]]}) == 5
    assert (sets[0] == draw_others(groups, 0)).all()


@pytest.mark.parametrize("sizes", [[10, 9], [6, 6], [4, 4, 3, 1], [4, 1], [12, 5]])
def test_sets_of_others_are_different_rows_where_groups_must_come_twice(sizes):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    sets = draw_sets_of_others(groups, 4, seed=0)
    is_other = groups[sets] != groups
    assert (is_other.sum(axis=1) == min(len(groups), 2 * (len(groups) - max(sizes)))).all()
    found = [sets[is_other[:, row], row].tolist() for row in range(len(groups))]
    repeated = [row for row, others in enumerate(found) if len(set(others)) < len(others)]
    # Ten against nine: two rows of the larger group do not turn in step.
    assert len(repeated) <= (2 if sizes == [10, 9] else 0)


def test_mistakes(pairs):
    with pytest.raises(UserError, match="--masks: there is no 'randon'. Did you mean random"):
        control_masks(pairs, "randon", seed=0)
    with pytest.raises(UserError, match="--masks other: there is only one image"):
        control_masks(pairs.select([0]), "other", seed=0)
