"""ImageNet-C: ImageNet's validation images under fifteen corruptions of five severities, as its authors ship it."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders
from hf_robustvit.builders.listing import IMAGE_SUFFIXES, File, file_name, list_class_folders
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import WNIDS


SEVERITIES = ("1", "2", "3", "4", "5")
# By the archive that each is in.
CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}


@dataclass
class ImageNetCConfig(ClassFolderConfig):
    """One of the corruptions: <severity>/<wnid>/*.JPEG."""

    @property
    def classes(self) -> Mapping[str, str]:
        return {f"{severity}/{wnid}": wnid for severity in SEVERITIES for wnid in WNIDS}

    @functools.cached_property
    def folders(self) -> dict[str, list[File]]:
        roots = {severity: os.path.join(self.root, severity) for severity in SEVERITIES}
        missing = [severity for severity, root in roots.items() if not os.path.isdir(root)]
        if missing:
            raise UserError(
                f"--dataset {self.name}: {self.root} has no folder {missing[0]}. Expected {self.expected}; --data_dir "
                "names the folder of the corruption, or one that holds it."
            )
        return {
            f"{severity}/{name}": files
            for severity, root in roots.items()
            for name, files in list_class_folders(root, IMAGE_SUFFIXES).items()
            if files
        }

    @property
    def extra_features(self) -> Mapping[str, Any]:
        return {"object": datasets.Value("string"), "value": datasets.Value("float64")}

    def extra(self, folder: str, image: File) -> Mapping[str, Any]:
        severity, wnid = folder.split("/")
        return {"object": f"{wnid}/{file_name(image)}", "value": float(severity)}


class ImageNetC(ClassFolders):
    """Builder of the fifteen corruptions that count for the mean corruption error.

    Rows also have `object`, the photo, which is there in all severities, and `value`, the severity.
    """

    BUILDER_CONFIGS = [
        ImageNetCConfig(
            name=f"imagenet-c-{corruption}",
            folder_names=tuple(
                f"{holder}{corruption}"
                for holder in (
                    "",
                    f"{archive}/",
                    "ImageNet-C/",
                    f"ImageNet-C/{archive}/",
                    "imagenet-c/",
                    f"imagenet-c/{archive}/",
                )
            ),
            expected=f"{corruption}/<1 to 5>/<wnid>/*.JPEG",
        )
        for archive, corruptions in CORRUPTIONS.items()
        for corruption in corruptions
    ]
