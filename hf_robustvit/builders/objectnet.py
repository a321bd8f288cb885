"""ObjectNet: the 113 of its 313 classes that ImageNet has too, as its authors ship it.

Its licence forbids tuning anything on it, and requires that images which are shown keep their red border of 1 pixel.
The border is in the images here; `run_eval.py --crop_border 2` cuts it off, as the authors do and the paper does not.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders
from hf_robustvit.errors import UserError
from hf_robustvit.files import read_json


@dataclass
class ObjectNetConfig(ClassFolderConfig):
    """ObjectNet's folder: `images/<folder>/*.png`, and the tables in `mappings`."""

    @functools.cached_property
    def root(self) -> str:
        root = super().root
        # The paper's code is given the folder of images, so that may be what the user names.
        if os.path.basename(root) == "images":
            root = os.path.dirname(root)
        for part in ("images", "mappings"):
            if not os.path.isdir(os.path.join(root, part)):
                raise UserError(f"--dataset objectnet: {root} has no folder {part!r}. Expected {self.expected}.")
        return root

    @property
    def images_root(self) -> str:
        return os.path.join(self.root, "images")

    @functools.cached_property
    def imagenet_indices(self) -> dict[str, tuple[int, ...]]:
        """The ImageNet indices of every folder that has any, in the order of the data set's own table."""
        label_of_folder = self._read("folder_to_objectnet_label.json")
        imagenet_labels = self._read("objectnet_to_imagenet_1k.json")
        # The lines of the last table are in a different order, which this one translates.
        positions = self._read("pytorch_to_imagenet_2012_id.json")
        lines = self._read("imagenet_to_label_2012_v2")
        try:
            index_of_position = {position: int(index) for index, position in positions.items()}
            index_of_label = {line.strip(): index_of_position[position] for position, line in enumerate(lines)}
            return {
                folder: tuple(index_of_label[name] for name in imagenet_labels[label].split("; "))
                for folder, label in sorted(label_of_folder.items())
                if label in imagenet_labels
            }
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            problem = f"one lacks {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"--dataset objectnet: the tables in {self.root}/mappings do not match: {problem}; "
                "unpack objectnet-1.0.zip again."
            ) from error

    @property
    def classes(self) -> Mapping[str, str]:
        return {folder: folder for folder in self.imagenet_indices}

    @property
    def uncounted_folders(self) -> Sequence[str]:
        return list(self._read("folder_to_objectnet_label.json"))

    def _read(self, name: str) -> Any:
        """One of the tables: the JSON ones as such, the other as its lines."""
        path = os.path.join(self.root, "mappings", name)
        try:
            if name.endswith(".json"):
                return dict(read_json(path))
            with open(path, encoding="utf-8") as file:
                return file.readlines()
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"--dataset objectnet: {path} cannot be read ({error}). Expected {self.expected}, with its mappings."
            ) from error


class ObjectNet(ClassFolders):
    """Builder of ObjectNet's images that ImageNet has a class for; the label names are the names of the folders."""

    BUILDER_CONFIGS = [
        ObjectNetConfig(
            name="objectnet",
            folder_names=("objectnet-1.0",),
            expected="objectnet-1.0/images/<folder>/*.png and objectnet-1.0/mappings/*.json",
        )
    ]


def read_imagenet_indices(data_dir: str | None) -> dict[str, tuple[int, ...]]:
    """The ImageNet indices of every folder that has any; the paper counts the first one only.

    Args:
        data_dir: ObjectNet's folder, or one that holds it.

    Raises:
        UserError: The folder or one of its tables cannot be read.
    """
    (config,) = ObjectNet.BUILDER_CONFIGS
    return replace(config, data_dir=data_dir).imagenet_indices
