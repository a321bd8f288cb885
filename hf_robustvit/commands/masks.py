"""Masks for a folder of images, from TokenCut or boxes: made, judged and shown on a contact sheet."""

from dataclasses import dataclass, field
from pathlib import Path

import datasets
from accelerate import PartialState

from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.mask_folder import find_masks
from hf_robustvit.data.pairs import refuse_unclear
from hf_robustvit.errors import UserError
from hf_robustvit.masks import BoxMasks, MaskFolder, QualityGate, TokenCut, TokenCutOptions
from hf_robustvit.masks.contact_sheet import contact_sheet
from hf_robustvit.masks.folder import summary


@dataclass
class MaskArguments:
    """The images, and where their masks go."""

    images: str = field(metadata={"help": "Folder with images/<class>/*, <class>/*, or images without classes."})
    output_dir: str = field(metadata={"help": "Where masks go; those that are there are kept."})
    annotated: str | None = field(
        default=None, metadata={"help": "Folder of annotated masks <class>/<stem>.png, to report the IoU with them."}
    )
    boxes: str | None = field(
        default=None, metadata={"help": "COCO .json, Pascal VOC .xml or a folder of these: rectangles, no TokenCut."}
    )
    batch_size: int = field(default=8, metadata={"help": "Images that go through the backbone together."})


def make_masks(
    arguments: MaskArguments,
    rows: datasets.Dataset,
    state: PartialState,
    options: TokenCutOptions,
    gate: QualityGate,
    reading: MaskReading = NO_FLAGS,
) -> str:
    """Make the masks that are missing, and judge all of them.

    Args:
        arguments: The images, and where their masks go.
        rows: The images: `image` and `image_id`.
        state: The processes and the device.
        options: TokenCut's settings.
        gate: Which masks are accepted.
        reading: How annotated masks are read.

    Returns:
        How many masks there are, and where, in the main process.

    Raises:
        UserError: The images, the annotated masks or the boxes do not fit, or no box gives a mask.
    """
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, found {arguments.batch_size}.")
    if arguments.annotated:
        rows = rows.add_column("mask", find_masks(rows["image_id"], arguments.annotated))
        rows = rows.cast_column("mask", datasets.Image())
        refuse_unclear(rows, reading)
    masker = BoxMasks(arguments.boxes) if arguments.boxes else TokenCut(options, state.device)
    if arguments.boxes:
        masker.check(rows["image_id"][:])
    folder = MaskFolder(arguments.output_dir, masker.settings, gate)
    records = folder.fill(rows, masker, arguments.batch_size, reading)
    sheet = Path(arguments.output_dir) / "contact_sheet.png"
    if state.is_main_process:
        contact_sheet(sheet, rows, records, arguments.output_dir)
    if arguments.boxes and not any(record["accepted"] for record in records.values()):
        first = next(iter(records))
        raise UserError(
            f"--boxes {arguments.boxes}: none of the {len(records)} images got a mask (first: {first}: "
            f"{records[first]['reason']}): give the boxes of these images."
        )
    place = f"The masks are in {folder.root / 'masks'}; look at {sheet} before training with them."
    return f"{summary(records)}\n{place}"
