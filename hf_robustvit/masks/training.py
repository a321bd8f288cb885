"""Masks that a masker makes for exactly the images that a model is about to be trained on."""

import logging
import os
from pathlib import Path

import datasets
from accelerate import PartialState

from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.mask_folder import take_masks
from hf_robustvit.errors import UserError
from hf_robustvit.masks.contact_sheet import contact_sheet
from hf_robustvit.masks.folder import Masker, MaskFolder, summary
from hf_robustvit.masks.quality import QualityGate


logger = logging.getLogger(__name__)


def with_made_masks(
    parts: list[datasets.Dataset],
    folder: str | os.PathLike,
    masker: Masker,
    gate: QualityGate,
    reading: MaskReading = NO_FLAGS,
) -> list[datasets.Dataset]:
    """Give data sets masks that a masker makes; images whose mask is rejected are left out and logged with the reason.

    Every process calls this; each makes its share of the masks. Those that are in the folder are kept.

    Args:
        parts: Data sets, for example the training and the validation images. Masks they have are compared with
            the new ones.
        folder: Where the masks are kept, as `MaskFolder` lays them out.
        masker: Makes the masks.
        gate: Which masks are accepted.
        reading: How masks that they have are read.

    Raises:
        UserError: Every mask of one of the data sets is rejected; or as the masker and `MaskFolder`.
    """
    rows = datasets.concatenate_datasets(parts)
    records = MaskFolder(folder, masker.settings, gate).fill(rows, masker, reading=reading)
    if PartialState().is_main_process:
        contact_sheet(Path(folder) / "contact_sheet.png", rows, records, folder)
    logger.info("Masks from %s in %s. %s", masker.origin, folder, summary(records))
    accepted = []
    for part in parts:
        image_ids = part["image_id"][:]
        kept = [row for row, image_id in enumerate(image_ids) if records[image_id]["accepted"]]
        if not kept:
            source, first = masker.settings["source"], f"{image_ids[0]}: {records[image_ids[0]]['reason']}"
            raise UserError(
                f"--masks {source}: all {len(image_ids)} masks of the training or validation images were rejected "
                f"(first: {first}); see {folder}/contact_sheet.png and lower the thresholds, or use another network."
            )
        accepted.append(take_masks(part.select(kept), Path(folder) / "masks"))
    return accepted
