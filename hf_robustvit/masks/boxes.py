"""Bounding boxes in COCO JSON or Pascal VOC XML files as rectangular masks."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hf_robustvit.errors import UserError
from hf_robustvit.masks.pipeline import ObjectMask


class Boxes(NamedTuple):
    """The boxes of one image, (left, top, right, bottom) in pixels, and the size (width, height) they refer to."""

    size: tuple[int, int]
    corners: list[tuple[float, float, float, float]]


class BoxMasks:
    """Masks from a file or folder of boxes: foreground is what lies in any of an image's boxes.

    An image is found by the name its file of boxes gives, which is its image_id, or the image_id's last part if that
    name has no folder.

    Args:
        source: A COCO .json file, a Pascal VOC .xml file, or a folder of VOC files.

    Raises:
        UserError: The source cannot be read, has no boxes, or gives an image twice.
    """

    def __init__(self, source: str | os.PathLike):
        self.source = Path(source)
        self.boxes = read_boxes(self.source)

    @property
    def settings(self) -> dict[str, Any]:
        """What the masks depend on, for masks.json."""
        return {"source": "boxes", "boxes": str(self.source.resolve())}

    def __call__(self, images: list[Image.Image], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of RGB images."""
        return [self._mask(image.size, image_id) for image, image_id in zip(images, image_ids, strict=True)]

    def _mask(self, size: tuple[int, int], image_id: str) -> ObjectMask:
        mask = np.zeros(size[::-1], dtype=np.uint8)
        found = self.boxes.get(image_id) or self.boxes.get(PurePosixPath(image_id).name)
        problem = None
        if found is None or not found.corners:
            problem = f"{self.source.name} has no box for it"
        elif found.size != size:
            problem = "its boxes are for {}x{} pixels, it has {}x{}".format(*found.size, *size)
        else:
            for left, top, right, bottom in np.round(found.corners).astype(int).clip(min=0):
                mask[top:bottom, left:right] = 255
            problem = None if mask.any() else "its boxes hold no pixel of it"
        return ObjectMask(Image.fromarray(mask), problem=problem)


def read_boxes(source: Path) -> dict[str, Boxes]:
    """The boxes of every image, by the name their file gives it.

    Raises:
        UserError: As `BoxMasks`.
    """
    files = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
    boxes = {}
    for file in files:
        try:
            found = _read_coco(file) if file.suffix.lower() == ".json" else _read_voc(file)
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"--boxes {file} cannot be read as {'COCO JSON' if file.suffix == '.json' else 'Pascal VOC XML'} "
                f"({type(error).__name__}: {error})."
            ) from error
        repeated = sorted(found.keys() & boxes.keys())
        if repeated:
            raise UserError(f"--boxes {source} gives boxes of {repeated[0]!r} in two files: join them in one.")
        boxes |= found
    if not any(image.corners for image in boxes.values()):
        raise UserError(f"--boxes {source} has no boxes; give a COCO .json file, or Pascal VOC .xml files or folder.")
    return boxes


def _read_coco(file: Path) -> dict[str, Boxes]:
    content = json.loads(file.read_text(encoding="utf-8"))
    corners = defaultdict(list)
    for annotation in content["annotations"]:
        left, top, width, height = map(float, annotation["bbox"])
        corners[annotation["image_id"]].append((left, top, left + width, top + height))
    return {
        image["file_name"]: Boxes((int(image["width"]), int(image["height"])), corners[image["id"]])
        for image in content["images"]
    }


def _read_voc(file: Path) -> dict[str, Boxes]:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    size = tuple(int(root.find("size").find(side).text) for side in ("width", "height"))
    corners = []
    for box in root.iter("bndbox"):
        left, top, right, bottom = (float(box.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax"))
        corners.append((left - 1, top - 1, right, bottom))  # VOC counts pixels from 1 and includes the last one
    return {root.find("filename").text.strip(): Boxes(size, corners)}
