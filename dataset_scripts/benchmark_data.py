"""A benchmark as the evaluation takes it: its rows, and where its classes are among those of each model."""

import logging
import os
from pathlib import Path

import datasets

from dataset_scripts import BENCHMARKS, imagenet_indices, load_benchmark
from dataset_scripts.image_mask_folder import MissingMasksError, load_image_mask_folder
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.run import BenchmarkData


logger = logging.getLogger(__name__)


def load_data(
    name: str, data_dir: str | None, checkpoints: list[Checkpoint], reading: MaskReading = NO_FLAGS
) -> list[BenchmarkData]:
    """Load a data set and find its classes among those of each model."""
    is_own_folder = name not in BENCHMARKS
    if not is_own_folder:
        rows, indices = load_benchmark(name, data_dir), imagenet_indices(name, data_dir)
    else:
        rows, indices = load_folder(name), None
        name = Path(name).resolve().name
    tests_masks = is_own_folder or BENCHMARKS[name].tests_masks
    if "label" not in rows.column_names:
        return [BenchmarkData(name, rows, None, tests_masks) for _ in checkpoints]
    classes = rows.features["label"].names
    spaces = [match_classes(name, classes, indices, checkpoint.model.config) for checkpoint in checkpoints]
    return [BenchmarkData(name, rows, space, tests_masks, is_own_folder, reading) for space in spaces]


def load_folder(path: str) -> datasets.Dataset:
    """Load a folder of one's own, with its masks if every image has one.

    Raises:
        UserError: The folder does not fit, or its masks are those of none of the images.
    """
    reason = "it has no folder 'masks'"
    if os.path.lexists(os.path.join(path, "masks")):
        try:
            return load_image_mask_folder(path)
        except MissingMasksError as error:
            reason = str(error)
    rows = load_image_mask_folder(path, with_masks=False)
    logger.warning("%s is evaluated without masks: %s", path, reason)
    return rows
