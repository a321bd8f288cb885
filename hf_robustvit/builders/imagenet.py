"""ImageNet's validation set, ImageNet-A, -R, -Sketch and -V2, as their authors ship them."""

from collections.abc import Mapping
from dataclasses import dataclass

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders
from hf_robustvit.imagenet_classes import IMAGENET_A, IMAGENET_R, WNIDS


@dataclass
class ImageNetConfig(ClassFolderConfig):
    """One of the sets.

    Args:
        wnids: Its classes, ascending.
        folder_is_index: Whether a folder is named by the ImageNet index of its class (as in -V2), not by the wnid.
    """

    wnids: tuple[str, ...] = WNIDS
    folder_is_index: bool = False

    @property
    def classes(self) -> Mapping[str, str]:
        # The name is the index: sorted as text, 10 comes before 2.
        return {str(WNIDS.index(wnid)) if self.folder_is_index else wnid: wnid for wnid in self.wnids}


class ImageNet(ClassFolders):
    """Builder of the five sets. The label names are wnids: those of the official subset of 200 for -A and -R."""

    BUILDER_CONFIGS = [
        ImageNetConfig(
            name="imagenet-val",
            folder_names=("val", "imagenet/val", "ILSVRC/Data/CLS-LOC/val"),
            expected="val/<wnid>/ILSVRC2012_val_*.JPEG",
        ),
        ImageNetConfig(
            name="imagenet-a",
            folder_names=("imagenet-a",),
            expected="imagenet-a/<wnid>/*.jpg",
            wnids=tuple(WNIDS[index] for index in IMAGENET_A),
        ),
        ImageNetConfig(
            name="imagenet-r",
            folder_names=("imagenet-r",),
            expected="imagenet-r/<wnid>/*.jpg",
            wnids=tuple(WNIDS[index] for index in IMAGENET_R),
        ),
        ImageNetConfig(
            name="imagenet-sketch",
            folder_names=("sketch", "ImageNet-Sketch/sketch", "ImageNet-Sketch"),
            expected="sketch/<wnid>/sketch_*.JPEG",
        ),
        ImageNetConfig(
            name="imagenet-v2",
            folder_names=("imagenetv2-matched-frequency-format-val",),
            expected="imagenetv2-matched-frequency-format-val/<ImageNet index>/*.jpeg",
            folder_is_index=True,
        ),
    ]
