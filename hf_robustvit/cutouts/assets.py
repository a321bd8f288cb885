"""The cut-outs on disk: 209 objects of 30 classes, each drawn in four art styles (assets/LICENCES.md)."""

import functools
import io
from pathlib import Path

from PIL import Image


ASSETS = Path(__file__).parent / "assets"
STYLES = ("fluent", "noto", "openmoji", "twemoji")

USUAL_SCENES = {
    "aircraft": "sky",
    "ball": "sky",
    "bird": "sky",
    "boat": "sea",
    "building": "city",
    "canine": "snow",
    "car": "city",
    "crustacean": "sea",
    "cycle": "city",
    "dessert": "room",
    "device": "space",
    "drink": "room",
    "fastfood": "brick",
    "feline": "desert",
    "fish": "sea",
    "flower": "meadow",
    "footwear": "snow",
    "fruit": "space",
    "furniture": "room",
    "headwear": "snow",
    "hoofed": "meadow",
    "insect": "meadow",
    "instrument": "brick",
    "reptile": "desert",
    "rodent": "forest",
    "tool": "forest",
    "train": "brick",
    "tree": "forest",
    "truck": "desert",
    "vegetable": "space",
}
"""The scene in which each class is usually seen: three classes to a scene."""

CLASS_NAMES = tuple(USUAL_SCENES)


@functools.cache
def load_cutouts() -> dict[tuple[str, str, str], Image.Image]:
    """Read all cut-outs.

    Returns:
        The RGBA images, at most 80 pixels a side and cropped to their alpha channel, by (style, class name, object).
        An object is named by the code points of its glyph and looks similar, but not the same, in the four styles.
    """
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(ASSETS / "cutouts.parquet").to_pylist()
    return {
        (row["style"], row["class_name"], row["object"]): Image.open(io.BytesIO(row["png"])).convert("RGBA")
        for row in rows
    }


@functools.cache
def objects_of_classes() -> dict[str, tuple[str, ...]]:
    """The names of each class's objects, sorted."""
    names = {class_name: set() for class_name in CLASS_NAMES}
    for _, class_name, object_name in load_cutouts():
        names[class_name].add(object_name)
    return {class_name: tuple(sorted(objects)) for class_name, objects in names.items()}
