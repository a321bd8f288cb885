"""Spurious ImageNet: photographs without an object of a class, which models take for the class all the same."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, LabelledImage
from hf_robustvit.imagenet_classes import WNIDS


@dataclass
class SpuriousImageNetConfig(ClassFolderConfig):
    """A folder for each spurious feature; the third part of its name is the ImageNet index of the class."""

    tables: tuple[str, ...] = ("timestamp.txt",)

    @functools.cached_property
    def classes(self) -> Mapping[str, str]:
        named = {folder: re.fullmatch(r"[^_]*_[^_]*_(\d{1,3})_(?:.*_)?\d+", folder) for folder in self.folders}
        indices = {folder: int(name[1]) for folder, name in named.items() if name}
        return {folder: WNIDS[indices[folder]] for folder in sorted(indices, key=indices.get)}


class SpuriousImageNet(ClassFolders):
    """Builder of the photographs.

    Rows have `absent_class` instead of `label`: the wnid of the class that the feature is taken for.
    """

    BUILDER_CONFIGS = [
        SpuriousImageNetConfig(
            name="spurious-imagenet",
            folder_names=("spurious_imagenet/images", "images"),
            expected="spurious_imagenet/images/<...>_<...>_<ImageNet index>_<...>_<component>/*",
        )
    ]

    def _features(self) -> dict[str, Any]:
        return _renamed(super()._features())

    def _generate_examples(self, images: list[LabelledImage]) -> Iterator[tuple[str, dict]]:
        for image_id, row in super()._generate_examples(images):
            yield image_id, _renamed(row)


def _renamed(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"absent_class" if name == "label" else name: value for name, value in columns.items()}
