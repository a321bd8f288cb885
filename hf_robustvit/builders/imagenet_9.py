"""ImageNet-9, the Backgrounds Challenge: objects of nine kinds with their own, other or no backgrounds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, index_ranges
from hf_robustvit.builders.listing import File, stem


VARIATIONS = ("original", "mixed_same", "mixed_rand", "mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")

# Folder -> the ImageNet indices of its kind, 370 in all; a model's guess of another index is wrong. Counted in
# in_to_in9.json of github.com/MadryLab/backgrounds_challenge at 46d224b, where -1 marks the others.
FOLDERS = {
    "00_dog": "151-170 173-268",
    "01_bird": "7-24 87-100 127-146",
    "02_wheeled vehicle": (
        "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 675 690 705 717 "
        "734 751 757 791 802-803 817 820 829 847 864 866-867 870 880"
    ),
    "03_reptile": "33-68",
    "04_carnivore": "269-280 286-299 356-362 387-388",
    "05_insect": "300-326",
    "06_musical instrument": (
        "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889"
    ),
    "07_primate": "365-384",
    "08_fish": "0-6 389-397",
}
IN9_INDICES = {folder[3:]: index_ranges(text) for folder, text in FOLDERS.items()}


@dataclass
class ImageNet9Config(ClassFolderConfig):
    """One of the variations."""

    @property
    def classes(self) -> Mapping[str, str]:
        return {folder: folder[3:] for folder in FOLDERS}

    @property
    def extra_features(self) -> Mapping[str, Any]:
        return {"object": datasets.Value("string")}

    def extra(self, folder: str, image: File) -> Mapping[str, Any]:
        # Composites are named after the photos of object and background, in this order.
        photo = re.search(r"n\d{8}_\d+", stem(image))
        return {"object": f"{folder}/{photo.group() if photo else stem(image)}"}


class ImageNet9(ClassFolders):
    """Builder of the eight variations.

    Rows also have `object`: the kind and the ImageNet photo that the object, or the lone background, is from.
    """

    BUILDER_CONFIGS = [
        ImageNet9Config(
            name=f"imagenet-9-{variation}",
            folder_names=tuple(
                f"{holder}{variation}/val"
                for holder in ("bg_challenge/", "imagenet-9/", "imagenet-9/bg_challenge/", "")
            )
            + ("val",),
            expected=f"{variation}/val/00_dog/*.JPEG, ..., {variation}/val/08_fish/*.JPEG",
        )
        for variation in VARIATIONS
    ]
