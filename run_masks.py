"""Make foreground masks for a folder of images: from TokenCut, which needs no annotation, or from bounding boxes.

    python run_masks.py --images DIR --output_dir OUT [--backbone facebook/dino-vitb16] [--annotated MASKS]
    python run_masks.py --images DIR --output_dir OUT --boxes instances.json
    accelerate launch run_masks.py flags.yaml

DIR holds images/<class>/* or <class>/*, or images without classes. Writes OUT/masks/<class>/<stem>.png for
run_finetune.py --masks OUT/masks, the rejected masks to OUT/rejected, OUT/masks.json with scores and reasons, and
OUT/contact_sheet.png. A second run makes what is missing, and judges all masks by the thresholds it is given.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import torch
from accelerate import PartialState

from dataset_scripts.image_mask_folder import load_images
from hf_robustvit.commands.settings import check_output_dir, exit_on_user_error, parse_settings
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


def main(
    arguments: MaskArguments, options: TokenCutOptions, gate: QualityGate, reading: MaskReading = NO_FLAGS
) -> None:
    """Make the masks, and say how many there are."""
    state = PartialState(cpu=not torch.accelerator.is_available())  # else processes on CPUs would not know each other
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.ERROR, format="%(message)s")
    if arguments.batch_size < 1:
        raise UserError(f"--batch_size must be at least 1, found {arguments.batch_size}.")
    check_output_dir(arguments.output_dir)
    with state.main_process_first():
        rows = load_images(arguments.images)
    if arguments.annotated:
        rows = rows.add_column("mask", find_masks(rows["image_id"], arguments.annotated))
        rows = rows.cast_column("mask", datasets.Image())
        refuse_unclear(rows, reading)
    masker = BoxMasks(arguments.boxes) if arguments.boxes else TokenCut(options, state.device)
    if arguments.boxes:
        masker.check(rows["image_id"][:])
    folder = MaskFolder(arguments.output_dir, masker.settings, gate)
    records = folder.fill(rows, masker, arguments.batch_size, reading)
    if state.is_main_process:
        sheet = Path(arguments.output_dir) / "contact_sheet.png"
        contact_sheet(sheet, rows, records, arguments.output_dir)
        print(summary(records))
        print(f"The masks are in {folder.root / 'masks'}; look at {sheet} before training with them.")
    state.destroy_process_group()  # several processes part before they exit
    if arguments.boxes and not any(record["accepted"] for record in records.values()):
        first = next(iter(records))
        raise UserError(
            f"--boxes {arguments.boxes}: none of the {len(records)} images got a mask (first: {first}: "
            f"{records[first]['reason']}): give the boxes of these images."
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(MaskArguments, TokenCutOptions, QualityGate, MaskReading))
