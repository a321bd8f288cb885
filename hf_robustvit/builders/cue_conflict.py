"""Shape and texture: the sets of Geirhos et al. (ICLR 2019) of 16 everyday classes, as their authors ship them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, index_ranges
from hf_robustvit.builders.listing import File, stem
from hf_robustvit.errors import UserError


# The ImageNet indices of every class, 207 in all, as in helper/human_categories.py of
# github.com/rgeirhos/texture-vs-shape at ccd0c01 and github.com/bethgelab/model-vs-human at 79ed7cd, which agree.
CLASSES = {
    "airplane": "404",
    "bear": "294-297",
    "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907",
    "car": "436 511 817",
    "cat": "281-286",
    "chair": "423 559 765 857",
    "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385-386",
    "keyboard": "508 878",
    "knife": "499",
    "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}
SIXTEEN_CLASSES = {name: index_ranges(text) for name, text in CLASSES.items()}


@dataclass
class CueConflictConfig(ClassFolderConfig):
    """One of the sets.

    Args:
        has_textures: Whether an image is named after its shape and its texture: <shape><n>-<texture><m>.
    """

    has_textures: bool = False

    @property
    def classes(self) -> Mapping[str, str]:
        return {name: name for name in CLASSES}

    @property
    def extra_features(self) -> Mapping[str, Any]:
        return {"object": datasets.Value("string"), "texture": datasets.Value("string")} if self.has_textures else {}

    def extra(self, folder: str, image: File) -> Mapping[str, Any]:
        if not self.has_textures:
            return {}
        named = re.fullmatch(r"([a-z]+\d+)-([a-z]+)\d+", stem(image))
        if not named or named[2] not in CLASSES:
            raise UserError(
                f"--dataset {self.name}: the name of {image.path} does not tell its texture. Expected {self.expected}."
            )
        return {"object": named[1], "texture": named[2]}


class CueConflict(ClassFolders):
    """Builder of cue conflicts (the label is the shape's class), edges and silhouettes.

    Rows of cue conflicts also have `object`, the picture whose shape it is, and `texture`, the class of the texture.
    """

    BUILDER_CONFIGS = [
        CueConflictConfig(
            name="cue-conflict",
            folder_names=("style-transfer-preprocessed-512",),
            expected="style-transfer-preprocessed-512/<shape>/<shape><number>-<texture><number>.png",
            has_textures=True,
        ),
        CueConflictConfig(name="edges", expected="edges/<class>/*.png"),
        CueConflictConfig(
            name="silhouettes", folder_names=("filled-silhouettes",), expected="filled-silhouettes/<class>/*.png"
        ),
    ]
