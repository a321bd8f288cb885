"""Bounding boxes in COCO JSON or Pascal VOC XML files as rectangular masks."""

import os
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hf_robustvit.errors import UserError
from hf_robustvit.files import read_json
from hf_robustvit.masks.tokencut import ObjectMask


class Boxes(NamedTuple):
    """The boxes of one image, (left, top, right, bottom) in pixels, and the size (width, height) they refer to."""

    size: tuple[int, int]
    corners: list[tuple[float, float, float, float]]


class BoxMasks:
    """Masks from a file or folder of boxes: foreground is what lies in any of an image's boxes.

    An image is found by its image_id, or by the end of the longer name where the source names more folders or fewer;
    suffixes do not count, and a backslash separates folders too. COCO gives the names in the file. A VOC file has the
    name of its image, with the folder it lies in if that is below the source; the name inside is not used, because
    ImageNet's have no suffix or a placeholder there.

    Args:
        source: A COCO .json file, a Pascal VOC .xml file, or a folder of VOC files.

    Raises:
        UserError: The source cannot be read, has no boxes, or gives an image twice.
    """

    def __init__(self, source: str | os.PathLike):
        self.source = Path(source)
        self.origin = f"--boxes {source}"
        self.boxes = read_boxes(self.source)
        self._names = defaultdict(list)  # by their last part
        for name in self.boxes:
            self._names[name.rpartition("/")[2]].append(name)

    @property
    def settings(self) -> dict[str, Any]:
        """What the masks depend on, for masks.json."""
        return {"source": "boxes", "boxes": str(self.source.resolve())}

    def check(self, image_ids: Sequence[str]) -> None:
        """Look for the boxes of all images before the work begins.

        Raises:
            UserError: No image has boxes, boxes could belong to two images, or an image could match two entries.
        """
        images = {}
        for image_id in image_ids:
            name = self._name(image_id)
            other = images.setdefault(name, image_id) if name else image_id
            if _plain(other) != _plain(image_id):
                raise UserError(
                    f"{self.origin}: {name!r} could be {other!r} or {image_id!r}: name the files with their folders."
                )
        if not images:
            raise UserError(
                f"{self.origin}: none of its {len(self.boxes)} names (first: {next(iter(self.boxes))!r}) is "
                f"that of one of the {len(image_ids)} images (first: {_plain(image_ids[0])!r}): make the names "
                "in it match those of the images."
            )

    def prepare(self, image: Image.Image) -> tuple[int, int]:
        """Its (width, height), which is all that is needed."""
        return image.size

    def __call__(self, sizes: list[tuple[int, int]], image_ids: list[str]) -> list[ObjectMask]:
        """The masks of images of these sizes."""
        return [self._mask(size, image_id) for size, image_id in zip(sizes, image_ids, strict=True)]

    def _mask(self, size: tuple[int, int], image_id: str) -> ObjectMask:
        mask = np.zeros(size[::-1], dtype=bool)
        found = self.boxes.get(self._name(image_id))
        if found is None or not found.corners:
            problem = f"{self.source.name} has no box for it"
        elif found.size != size:
            problem = "its boxes are for {}x{} pixels, it has {}x{}".format(*found.size, *size)
        else:
            for left, top, right, bottom in np.round(found.corners).clip(0, max(size)).astype(int):
                mask[top:bottom, left:right] = True
            problem = None if mask.any() else "its boxes contain none of its pixels"
        return ObjectMask(mask, size, problem=problem)

    def _name(self, image_id: str) -> str | None:
        """What the source calls an image."""
        image = _plain(image_id)
        if image in self.boxes:
            return image
        names = [
            name
            for name in self._names.get(image.rpartition("/")[2], ())
            if name.endswith(f"/{image}") or image.endswith(f"/{name}")
        ]
        if len(names) > 1:
            raise UserError(
                f"{self.origin}: {image_id!r} could be {names[0]!r} or {names[1]!r}: give the files the images' names."
            )
        return names[0] if names else None


def read_boxes(source: Path) -> dict[str, Boxes]:
    """The boxes of every image, by its name without suffix, separated by slashes.

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
                parts = file.relative_to(source).parts[-2:] if source.is_dir() else [file.name]
                found = {_plain("/".join(parts)): _read_voc(file)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(
                f"--boxes {file} cannot be read as {'COCO JSON' if file.suffix == '.json' else 'Pascal VOC XML'} "
                f"({type(error).__name__}: {error})."
            ) from error
        repeated = sorted(found.keys() & boxes.keys())
        if repeated:
            raise UserError(f"--boxes {source} has boxes for {repeated[0]!r} in two files: merge them into one.")
        boxes |= found
    if not any(image.corners for image in boxes.values()):
        raise UserError(f"--boxes {source} has no boxes; give a COCO .json file, or Pascal VOC .xml files or folder.")
    return boxes


def _read_coco(file: Path) -> dict[str, Boxes]:
    content = read_json(file)
    corners = defaultdict(list)
    for annotation in content["annotations"]:
        left, top, width, height = _finite(annotation["bbox"])
        corners[annotation["image_id"]].append((left, top, left + width, top + height))
    boxes = {}
    for image in content["images"]:
        name = _plain(image["file_name"])
        if name in boxes:
            raise UserError(
                f"--boxes {file} has two images {name!r} (suffixes do not count): name the files with their folders."
            )
        boxes[name] = Boxes((int(image["width"]), int(image["height"])), corners[image["id"]])
    return boxes


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
        raise ValueError(f"{numbers} are not the corners of a box")
    return numbers


def _plain(name: str) -> str:
    """A file's name without suffix, in composed accents as image_ids are, its folders separated by slashes."""
    return os.path.splitext(unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./"))[0]
