"""Hard ImageNet: ImageNet's validation images of 15 classes with strong spurious cues, and their objects' masks."""

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, LabelledImage
from hf_robustvit.builders.imagenet import ImageNet
from hf_robustvit.builders.listing import IMAGE_SUFFIXES, file_at, normalised, refuse_escape, visible_entries
from hf_robustvit.errors import UserError


# As LANCE (Prabhu et al., NeurIPS 2023) lists them; the authors' own list is a pickle, which is not opened here.
CLASSES = (
    "n02492660 n02777292 n02807133 n03218198 n03535780 n03770439 n03899768 n04019541 n04162706 n04228054 n04251144 "
    "n04264628 n04356056 n04540053 n09835506"
).split()


@dataclass
class HardImageNetConfig(ClassFolderConfig):
    """The folder of masks, <wnid>_<name of the image>, and ImageNet's validation images in the same data_dir."""

    @property
    def classes(self) -> Mapping[str, str]:
        return {wnid: wnid for wnid in CLASSES}

    @property
    def extra_features(self) -> Mapping[str, Any]:
        return {"mask": datasets.Image()}

    @functools.cached_property
    def images(self) -> list[LabelledImage]:
        (imagenet,) = (config for config in ImageNet.BUILDER_CONFIGS if config.name == "imagenet-val")
        images_root = replace(imagenet, data_dir=self.data_dir).root
        masks = [
            entry for entry in visible_entries(self.root, self.root) if entry.name.lower().endswith(IMAGE_SUFFIXES)
        ]
        if not masks:
            raise UserError(
                f"--dataset {self.name}: {self.data_dir} has no folder {self.folder_names[0]} with masks. Expected "
                f"{self.expected}, both in the folder that --data_dir names."
            )
        rows, missing = [], []
        for mask in masks:
            wnid, _, name = normalised(mask.name).partition("_")
            path = os.path.join(images_root, wnid, name)
            if wnid not in CLASSES or not os.path.exists(path):
                missing.append(mask.name)
                continue
            refuse_escape(path, images_root)
            rows.append(LabelledImage(f"{wnid}/{name}", wnid, file_at(path), {"mask": file_at(mask.path)}))
        if missing:
            raise UserError(
                f"--dataset {self.name}: {len(missing)} of {len(masks)} masks in {self.root} have no image "
                f"<wnid>/<name> in {images_root} (first: {missing[0]}). Expected "
                f"{self.expected}, both in the folder that --data_dir names."
            )
        return rows


class HardImageNet(ClassFolders):
    """Builder of the validation images with masks.

    Rows also have `mask` (8-bit grey, 255 is the object): as for its authors, all that is not black in the file.
    """

    BUILDER_CONFIGS = [
        HardImageNetConfig(
            name="hard-imagenet",
            folder_names=("hardImageNet/val", "HardImageNet/val"),
            expected="hardImageNet/val/<wnid>_<name>.JPEG and ImageNet's val/<wnid>/<name>.JPEG",
        )
    ]

    def _generate_examples(self, images: list[LabelledImage]) -> Iterator[tuple[str, dict]]:
        for image_id, row in super()._generate_examples(images):
            yield image_id, row | {"mask": _read_mask(row["mask"].path)}


def _read_mask(path: str) -> Image.Image:
    try:
        with Image.open(path) as file:
            return Image.fromarray((np.asarray(file.convert("L")) > 0).astype(np.uint8) * 255)
    # Pillow's decoders raise almost anything on broken files.
    except Exception as error:
        raise UserError(f"--dataset hard-imagenet: the mask {path} cannot be read ({error}): repair it.") from error
