"""Make foreground masks for a folder of images: from TokenCut, class names, a saliency network or boxes.

    python run_masks.py --images DIR --output_dir OUT [--backbone facebook/dino-vitb16] [--annotated MASKS]
    python run_masks.py --images DIR --output_dir OUT --source boxes --boxes instances.json
    python run_masks.py --images DIR --output_dir OUT --source text | --source saliency --saliency_model isnet.onnx
    accelerate launch run_masks.py flags.yaml

DIR holds images/<class>/* or <class>/*, or images without classes. Writes OUT/masks/<class>/<stem>.png for
run_finetune.py --masks OUT/masks, the rejected masks to OUT/rejected, OUT/masks.json with scores and reasons, and
OUT/contact_sheet.png. A second run makes what is missing, and judges all masks by the thresholds it is given.
"""

from hf_robustvit.commands.start import COMMANDS, start
from hf_robustvit.flags.masks import MaskArguments


__all__ = ["MaskArguments", "main"]

main = COMMANDS["masks"].run

if __name__ == "__main__":
    start("masks")
