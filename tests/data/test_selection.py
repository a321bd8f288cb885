import numpy as np
import pytest

from hf_robustvit.data import choose_training_images
from hf_robustvit.errors import UserError


CLASSES = ["ant", "bee", "cat", "dog", "eel"]


def rows_of(images_per_class, seed=None):
    """(labels, image_ids) of a data set with so many images of each class, rows in random order where seeded."""
    rows = [
        (label, f"{CLASSES[label]}/{number}.jpg") for label, n in enumerate(images_per_class) for number in range(n)
    ]
    if seed is not None:
        rows = [rows[row] for row in np.random.default_rng(seed).permutation(len(rows))]
    return [label for label, _ in rows], [image_id for _, image_id in rows]


def choose(images_per_class, num_classes, samples_per_class, class_seed=None, order=None):
    """The choice with names instead of row numbers."""
    labels, image_ids = rows_of(images_per_class, order)
    selection = choose_training_images(labels, image_ids, CLASSES, num_classes, samples_per_class, class_seed)
    return (
        selection.training_classes,
        selection.held_out_classes,
        [image_ids[row] for row in selection.training_indices],
        [image_ids[row] for row in selection.validation_indices],
    )


def test_without_a_seed_the_first_are_taken():
    assert choose([4] * 5, 3, 2) == (
        ("ant", "bee", "cat"),
        ("dog", "eel"),
        ["ant/0.jpg", "ant/1.jpg", "bee/0.jpg", "bee/1.jpg", "cat/0.jpg", "cat/1.jpg"],
        ["dog/0.jpg", "eel/0.jpg"],
    )


@pytest.mark.parametrize("class_seed", [None, 0, 1, 7])
def test_the_order_of_rows_does_not_matter(class_seed):
    reference = choose([6] * 5, 3, 2, class_seed)
    assert all(choose([6] * 5, 3, 2, class_seed, order) == reference for order in range(5))


def test_zero_is_a_seed_and_seeds_differ():
    choices = [str(choose([20] * 5, 3, 4, class_seed)) for class_seed in (None, 0, 1, 2)]
    assert len(set(choices)) == 4


def test_seeds_reach_every_class_and_image():
    drawn = [choose([5] * 5, 2, 2, class_seed) for class_seed in range(200)]
    for training_classes, held_out, training, validation in drawn:
        assert sorted(training_classes + held_out) == CLASSES and list(training_classes) == sorted(training_classes)
        assert [image.split("/")[0] for image in training] == [name for name in training_classes for _ in range(2)]
        assert len(set(training)) == 4
        assert [image.split("/")[0] for image in validation] == list(held_out)
    counts = np.unique([image for _, _, training, _ in drawn for image in training], return_counts=True)[1]
    assert len(counts) == 25
    assert np.abs(counts - 200 * 4 / 25).max() < 4 * np.sqrt(200 * 0.16 * 0.84)


def test_larger_choices_contain_smaller_ones():
    small, large = choose([6] * 5, 2, 2, 3), choose([6] * 5, 4, 3, 3)
    assert set(small[0]) < set(large[0]) and set(small[2]) < set(large[2])


def test_classes_without_images_are_not_chosen():
    assert choose([0, 3, 0, 3, 3], 2, 1)[:2] == (("bee", "dog"), ("eel",))


@pytest.mark.parametrize("class_seed", [None, 0])
def test_all_classes_leave_further_images_for_validation(class_seed):
    training_classes, held_out, training, validation = choose([3, 4, 2, 3, 2], 5, 2, class_seed)
    assert training_classes == tuple(CLASSES) and held_out == ()
    assert [image.split("/")[0] for image in validation] == ["ant", "bee", "dog"]
    assert not set(validation) & set(training) and len(training) == 10


@pytest.mark.parametrize(
    ("images_per_class", "arguments", "message"),
    [
        ([2] * 5, (6, 1), "--num_classes 6: the data set has images of only 5 classes: lower it."),
        ([2, 0, 2, 0, 2], (4, 1), "--num_classes 4: the data set has images of only 3 classes: lower it."),
        (
            [3, 2, 1, 3, 3],
            (4, 3),
            "--samples_per_class 3: 2 of the 4 training classes have fewer images; 'cat' has 1: lower it, or "
            "add images with masks.",
        ),
        (
            [2] * 5,
            (5, 2),
            "--num_classes 5 takes every class and --samples_per_class 2 every image, so that none is left for "
            "validation: lower --num_classes or lower --samples_per_class or add images with masks.",
        ),
        (
            [1],
            (1, 1),
            "--num_classes 1 takes every class and --samples_per_class 1 every image, so that none is left for "
            "validation: add images with masks.",
        ),
        (
            [2] * 5,
            (0, 1),
            "--num_classes 0, --samples_per_class 1 and --class_seed None: the first two must be at least 1, the "
            "seed at least 0.",
        ),
        ([2] * 5, (2, 0), None),
        ([2] * 5, (2, 1, -1), None),
    ],
)
def test_what_cannot_be_chosen(images_per_class, arguments, message):
    with pytest.raises(UserError) as error:
        choose(images_per_class, *arguments)
    assert message is None and "must be at least" in str(error.value) or str(error.value) == message


def test_a_row_without_a_label():
    with pytest.raises(UserError, match="The image b has the label -1, expected 0 to 4."):
        choose_training_images([0, -1], ["a", "b"], CLASSES, 1, 1)
