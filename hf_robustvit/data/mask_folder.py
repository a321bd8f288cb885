"""Masks in a separate folder: which file belongs to which image, and a data set with them."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import datasets

from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)


def mask_path(folder: str | os.PathLike, image_id: str) -> Path:
    """Where the mask of an image is: its image_id with the suffix .png, below the folder.

    Raises:
        UserError: The image_id leads out of the folder.
    """
    relative = PurePosixPath(image_id)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"The image_id {image_id!r} leads out of its folder: rename the image.")
    return Path(folder) / relative.with_suffix(".png")


def find_masks(image_ids: Sequence[str], folder: str | os.PathLike) -> list[str | None]:
    """The path of each image's mask, None where it has none.

    Args:
        image_ids: Names of the images.
        folder: Holds <image_id with the suffix .png>, or a folder `masks` that does.

    Raises:
        UserError: The folder has a mask for none of the images.
    """
    root = os.path.abspath(folder)
    if os.path.isdir(inner := os.path.join(root, "masks")):
        root = inner
    paths = [str(mask_path(root, image_id)) for image_id in image_ids]
    found = [path if os.path.isfile(path) else None for path in paths]
    if not any(found):
        raise UserError(f"{root} has a mask for none of the {len(paths)} images; the first would be {paths[0]}.")
    return found


def take_masks(dataset: datasets.Dataset, folder: str | os.PathLike) -> datasets.Dataset:
    """The data set with its masks from a folder; images that have none there are left out, and logged.

    Args:
        dataset: Rows with `image_id`; a column `mask` is replaced.
        folder: As for `find_masks`.

    Raises:
        UserError: As `find_masks`.
    """
    image_ids = dataset["image_id"][:]
    paths = find_masks(image_ids, folder)
    usable = [row for row, path in enumerate(paths) if path]
    if len(usable) < len(paths):
        logger.warning(
            "%d of %d images have no mask in %s (first: %s); they are left out.",
            len(paths) - len(usable),
            len(paths),
            folder,
            image_ids[paths.index(None)],
        )
    if "mask" in dataset.column_names:
        dataset = dataset.remove_columns("mask")
    dataset = dataset.select(usable).add_column("mask", [paths[row] for row in usable])
    return dataset.cast_column("mask", datasets.Image())
