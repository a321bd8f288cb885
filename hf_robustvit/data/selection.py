"""Which classes and images a model is fine-tuned on, chosen so that anyone can repeat the choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_robustvit.errors import UserError


# The data sets that `--dataset` of run_finetune.py takes by name; their authors made the masks.
TRAINING_SETS = ("cutouts", "imagenet-s")


@dataclass(frozen=True)
class Selection:
    """A choice of classes (names and labels, in label order) and images (row numbers of the data set)."""

    training_classes: tuple[str, ...]
    held_out_classes: tuple[str, ...]
    training_class_indices: tuple[int, ...]
    held_out_class_indices: tuple[int, ...]
    training_indices: list[int]
    validation_indices: list[int]


def choose_training_images(
    labels: Sequence[int],
    image_ids: Sequence[str],
    class_names: Sequence[str],
    num_classes: int,
    samples_per_class: int,
    class_seed: int | None = None,
) -> Selection:
    """Choose the training classes with their images, and one validation image of every held-out class.

    The paper (section 4) takes the first 500 classes of ImageNet-S, 3 images of each, and one image of each of the
    other 414 for validation; its appendix E draws the classes. The choice does not depend on the order of the rows,
    and for a given seed a larger choice contains the smaller ones. Without held-out classes the validation images are
    one further image of each training class that has one.

    Args:
        labels: The class of each row, an index into `class_names`.
        image_ids: The unique name of each row.
        class_names: All classes; those without a row are never chosen.
        num_classes: How many classes to train on.
        samples_per_class: How many images of each.
        class_seed: None takes the first classes in label order and their first images by image_id; a number, 0 too,
            draws classes and images.

    Returns:
        The choice; images in label order, then in the order in which they were chosen.

    Raises:
        UserError: There are fewer classes or images than asked for, or none is left for validation.
    """
    if num_classes < 1 or samples_per_class < 1 or (class_seed or 0) < 0:
        raise UserError(
            f"--num_classes {num_classes}, --samples_per_class {samples_per_class} and --class_seed {class_seed}: "
            "the first two must be at least 1, the seed at least 0."
        )
    rows_of_class = _rows_by_class(labels, image_ids, len(class_names))
    available = list(rows_of_class)
    if num_classes > len(available):
        raise UserError(
            f"--num_classes {num_classes}: the data set has images of only {len(available)} classes: lower it."
        )
    chosen = available[:num_classes]
    if class_seed is not None:
        generator = np.random.default_rng(class_seed)
        chosen = sorted(generator.permutation(available)[:num_classes].tolist())
        rows_of_class = {label: generator.permutation(rows).tolist() for label, rows in rows_of_class.items()}

    short = [label for label in chosen if len(rows_of_class[label]) < samples_per_class]
    if short:
        fewest = min(short, key=lambda label: len(rows_of_class[label]))
        raise UserError(
            f"--samples_per_class {samples_per_class}: {len(short)} of the {num_classes} training classes have fewer "
            f"images; {class_names[fewest]!r} has {len(rows_of_class[fewest])}: lower it, or add images with masks."
        )
    held_out = [label for label in available if label not in chosen]
    validation = [rows_of_class[label][0] for label in held_out]
    if not held_out:
        validation = [
            row for label in chosen for row in rows_of_class[label][samples_per_class : samples_per_class + 1]
        ]
    if not validation:
        flags = {"--num_classes": num_classes, "--samples_per_class": samples_per_class}
        lower = [f"lower {flag}" for flag, value in flags.items() if value > 1]
        raise UserError(
            f"--num_classes {num_classes} takes every class and --samples_per_class {samples_per_class} every image, "
            f"so that none is left for validation: {' or '.join([*lower, 'add images with masks'])}."
        )
    return Selection(
        training_classes=tuple(class_names[label] for label in chosen),
        held_out_classes=tuple(class_names[label] for label in held_out),
        training_class_indices=tuple(chosen),
        held_out_class_indices=tuple(held_out),
        training_indices=[row for label in chosen for row in rows_of_class[label][:samples_per_class]],
        validation_indices=validation,
    )


def _rows_by_class(labels: Sequence[int], image_ids: Sequence[str], num_labels: int) -> dict[int, list[int]]:
    """The rows of every class that has any, sorted by image_id; the classes in label order."""
    rows_of_class = {label: [] for label in range(num_labels)}
    for row in sorted(range(len(image_ids)), key=image_ids.__getitem__):
        if labels[row] not in rows_of_class:
            raise UserError(f"The image {image_ids[row]} has the label {labels[row]}, expected 0 to {num_labels - 1}.")
        rows_of_class[labels[row]].append(row)
    return {label: rows for label, rows in rows_of_class.items() if rows}
