"""Make foreground masks for a folder of images: from TokenCut, class names, a saliency network or boxes.

    python run_masks.py --images DIR --output_dir OUT [--backbone facebook/dino-vitb16] [--annotated MASKS]
    python run_masks.py --images DIR --output_dir OUT --source boxes --boxes instances.json
    python run_masks.py --images DIR --output_dir OUT --source text | --source saliency --saliency_model isnet.onnx
    accelerate launch run_masks.py flags.yaml

DIR holds images/<class>/* or <class>/*, or images without classes. Writes OUT/masks/<class>/<stem>.png for
run_finetune.py --masks OUT/masks, the rejected masks to OUT/rejected, OUT/masks.json with scores and reasons, and
OUT/contact_sheet.png. A second run makes what is missing, and judges all masks by the thresholds it is given.
"""

import logging

import torch
from accelerate import PartialState

from hf_robustvit.builders.image_mask_folder import load_images
from hf_robustvit.commands.masks import MaskArguments, make_masks
from hf_robustvit.commands.settings import check_output_dir, exit_on_user_error, parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.masks import OPTIONS, QualityGate


def main(arguments: MaskArguments, gate: QualityGate, reading: MaskReading, *mask_options: object) -> None:
    """Make the masks, and say how many there are."""
    state = PartialState(cpu=not torch.accelerator.is_available())  # else processes on CPUs would not know each other
    logging.basicConfig(level=logging.INFO if state.is_main_process else logging.ERROR, format="%(message)s")
    check_output_dir(arguments.output_dir)
    with state.main_process_first():
        rows = load_images(arguments.images)
    summary = make_masks(arguments, rows, state, mask_options, gate, reading)
    if state.is_main_process:
        print(summary)
    state.destroy_process_group()  # several processes part before they exit


if __name__ == "__main__":
    with exit_on_user_error():
        main(*parse_settings(MaskArguments, QualityGate, MaskReading, *OPTIONS))
