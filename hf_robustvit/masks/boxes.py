"""Bounding boxes in COCO JSON or Pascal VOC XML files as rectangular masks."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
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

    An image is found by its image_id, or the image_id's last part where the source names no folder; suffixes do not
    count. COCO gives the names in the file. A VOC file has the name of its image, with the folder it lies in if that
    is below the source; the name inside is not used, ImageNet's have no suffix or a placeholder there.

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

    def prepare(self, image: Image.Image) -> tuple[int, int]:
        """(width, height), all there is to know."""
        return image.size

    def __call__(self, sizes: list[tuple[int, int]], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of images of these sizes."""
        return [self._mask(size, image_id) for size, image_id in zip(sizes, image_ids, strict=True)]

    def _mask(self, size: tuple[int, int], image_id: str) -> ObjectMask:
        mask = np.zeros(size[::-1], dtype=bool)
        name = _without_suffix(image_id)
        found = self.boxes.get(name) or self.boxes.get(PurePosixPath(name).name)
        problem = None
        if found is None or not found.corners:
            problem = f"{self.source.name} has no box for it"
        elif found.size != size:
            problem = "its boxes are for {}x{} pixels, it has {}x{}".format(*found.size, *size)
        else:
            for left, top, right, bottom in np.round(found.corners).astype(int).clip(min=0):
                mask[top:bottom, left:right] = True
            problem = None if mask.any() else "its boxes hold no pixel of it"
        return ObjectMask(mask, size, problem=problem)


def read_boxes(source: Path) -> dict[str, Boxes]:
    """The boxes of every image, by its name without suffix.

    Raises:
        UserError: As `BoxMasks`.
    """
    files = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
    boxes = {}
    for file in files:
        try:
            if file.suffix.lower() == ".json":
                found = _read_coco(file)
            else:
                name = PurePosixPath(*file.relative_to(source).parts[-2:]) if source.is_dir() else file.name
                found = {_without_suffix(str(name)): _read_voc(file)}
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
        left, top, width, height = _finite(annotation["bbox"])
        corners[annotation["image_id"]].append((left, top, left + width, top + height))
    return {
        _without_suffix(image["file_name"]): Boxes((int(image["width"]), int(image["height"])), corners[image["id"]])
        for image in content["images"]
    }


def _read_voc(file: Path) -> Boxes:
    text = file.read_text(encoding="utf-8")
    if "<!DOCTYPE" in text:  # its entities could make a small file expand without end
        raise ValueError("it declares a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    size = tuple(int(root.find("size").find(side).text) for side in ("width", "height"))
    corners = []
    for box in root.iter("bndbox"):
        left, top, right, bottom = _finite(box.find(name).text for name in ("xmin", "ymin", "xmax", "ymax"))
        corners.append((left - 1, top - 1, right, bottom))  # VOC counts pixels from 1 and includes the last one
    return Boxes(size, corners)


def _finite(values: Iterable[str | float]) -> list[float]:
    numbers = [float(value) for value in values]
    if not np.isfinite(numbers).all():
        raise ValueError(f"{numbers} are no corners of a box")
    return numbers


def _without_suffix(name: str) -> str:
    return os.path.splitext(name)[0]
