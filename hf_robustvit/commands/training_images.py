"""Which images are trained and validated on, with which masks, and how these are read."""

from collections.abc import Callable
from typing import Any

import datasets
from transformers import PretrainedConfig

from hf_robustvit import paper
from hf_robustvit.builders.parquet import official_name
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.data import (
    MADE_MASKS,
    MASK_CONTROLS,
    NO_FLAGS,
    TRAINING_SETS,
    MaskReading,
    Selection,
    check_pairs,
    choose_training_images,
    class_wnids,
    control_masks,
)
from hf_robustvit.errors import UserError
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.masks import SOURCES, QualityGate, with_made_masks


def choose_images(
    arguments: FinetuneArguments,
    config: RobustViTConfig,
    pairs: datasets.Dataset,
    masker_options: Any | None,
    gate: QualityGate,
    readings: tuple[MaskReading | None, MaskReading | None],
    validation_pairs: datasets.Dataset | None,
    fetch: Callable[[datasets.Dataset], datasets.Dataset] | None,
) -> tuple[Selection, datasets.Dataset, datasets.Dataset]:
    """Choose the images for training and validation, and give them the masks that are asked for.

    Validation pairs of their own keep their masks, except under a control, where they get the control's too.

    Returns:
        What was chosen, and the rows of both parts that can be used.
    """
    class_names, num_classes = pairs.features["label"].names, arguments.num_classes
    if num_classes is None:
        num_classes = paper.TRAINING_CLASSES.get(official_name(arguments.dataset)) or len(set(pairs["label"]))
    selection = choose_training_images(
        pairs["label"], pairs["image_id"], class_names, num_classes, arguments.samples_per_class, arguments.class_seed
    )
    training = pairs.select(selection.training_indices)
    own_validation = validation_pairs is not None
    chosen = [training, validation_pairs if own_validation else pairs.select(selection.validation_indices)]
    if fetch:
        chosen = [fetch(part) for part in chosen]
    if masker_options:
        masker = SOURCES[arguments.masks].masker(masker_options, config.device)
        parts = chosen[:1] if own_validation else chosen
        made = with_made_masks(parts, f"{config.output_dir}/{arguments.masks}", masker, gate, readings[1] or NO_FLAGS)
        chosen[: len(made)] = made
    with config.main_process_first():
        # Validation images only measure: one without an object's outline in its mask is left out, and named.
        skips = arguments.skip_unreadable, arguments.skip_unreadable or ("empty", "implausible")
        chosen = [
            check_pairs(part, skip, reading=how, use=use)
            for part, skip, how, use in zip(chosen, skips, readings, ("training", "validation"), strict=True)
        ]
        if arguments.masks in MASK_CONTROLS:
            chosen = [
                control_masks(part, arguments.masks, config.seed, how)
                for part, how in zip(chosen, readings, strict=True)
            ]
    return selection, *chosen


def own_mask_reading(
    arguments: FinetuneArguments, pairs: datasets.Dataset, reading: MaskReading, validates_elsewhere: bool = False
) -> MaskReading | None:
    """How the masks are read; None where the package has made them, or a data set's authors have.

    Args:
        arguments: Where the masks come from.
        pairs: What is trained on.
        reading: How masks of the user's own are read.
        validates_elsewhere: Whether images of their own, with masks of the user's, are validated on; then flags for
            these are right even where training needs none.

    Raises:
        UserError: Flags are given that the masks do not need, or there are no masks.
    """
    needs_none = arguments.masks in (*MADE_MASKS, "whole")
    if not needs_none and "mask" not in pairs.column_names:
        raise UserError(
            f"--dataset: {arguments.dataset!r} has no column of masks: name a folder of them by --masks, or make them "
            "with --masks tokencut."
        )
    are_the_authors = (
        arguments.masks in ("annotated", *MASK_CONTROLS) and official_name(arguments.dataset) in TRAINING_SETS
    )
    if not needs_none and not are_the_authors:
        return reading
    if (flags := reading.settings()) and not validates_elsewhere:
        raise UserError(
            f"--{next(iter(flags))} is for masks of your own, and --dataset {arguments.dataset} --masks "
            f"{arguments.masks} has none: leave it out."
        )
    return None


def recorded_classes(selection: Selection, config: PretrainedConfig) -> dict[str, list]:
    """What robustvit.json records about the chosen classes besides their names: indices, and ImageNet's wnids."""
    chosen = {"training": selection.training_class_indices, "held_out": selection.held_out_class_indices}
    record = {f"{part}_class_indices": list(indices) for part, indices in chosen.items()}
    if wnids := class_wnids(config):
        record |= {f"{part}_class_wnids": [wnids[index] for index in indices] for part, indices in chosen.items()}
    return record
