"""Waterbirds: birds of CUB on land and on water backgrounds, most of which fit the bird in training."""

import csv
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, LabelledImage
from hf_robustvit.builders.listing import file_at
from hf_robustvit.errors import UserError


BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
TEST_SPLIT = "2"
# Training images of each bird on each place, the weights of the adjusted average: wilds/datasets/waterbirds_dataset.py
# of github.com/p-lambda/wilds at 4726775.
TRAINING_COUNTS = {("0", "0"): 3498, ("0", "1"): 184, ("1", "0"): 56, ("1", "1"): 1057}


@dataclass
class WaterbirdsConfig(ClassFolderConfig):
    """The folder: `metadata.csv` with the columns img_filename, y, split and place, and the images that it names."""

    @property
    def classes(self) -> Mapping[str, str]:
        return dict(zip("01", BIRDS, strict=True))

    @property
    def extra_features(self) -> Mapping[str, Any]:
        return {"group": datasets.Value("string"), "group_weight": datasets.Value("float64")}

    @functools.cached_property
    def images(self) -> list[LabelledImage]:
        """The images of the test split, in the table's order."""
        path = os.path.join(self.root, "metadata.csv")
        try:
            with open(path, encoding="utf-8", newline="") as file:
                table = [row for row in csv.DictReader(file) if row["split"] == TEST_SPLIT]
            images = [self._image(row["img_filename"], row["y"], row["place"]) for row in table]
        except (OSError, KeyError, ValueError, csv.Error) as error:
            raise UserError(
                f"--dataset {self.name}: {path} or an image in it cannot be read ({type(error).__name__}: {error}). "
                f"Expected {self.expected}; --data_dir names this folder or the one that holds it."
            ) from error
        if not images:
            raise UserError(
                f"--dataset {self.name}: {path} has no test image (split {TEST_SPLIT}): download it again."
            )
        return images

    def _image(self, name: str, bird: str, place: str) -> LabelledImage:
        path = os.path.realpath(os.path.join(self.root, name))
        if os.path.commonpath([path, os.path.realpath(self.root)]) != os.path.realpath(self.root):
            raise UserError(f"--dataset {self.name}: metadata.csv names {name}, which is outside {self.root}.")
        weight = TRAINING_COUNTS[bird, place]
        group = f"{BIRDS[int(bird)]} on {PLACES[int(place)]}"
        return LabelledImage(name, BIRDS[int(bird)], file_at(path), {"group": group, "group_weight": weight})


class Waterbirds(ClassFolders):
    """Builder of the test images; the label names are landbird and waterbird.

    Rows also have `group`, the bird and its place, and `group_weight`, how many training images the group has.
    """

    BUILDER_CONFIGS = [
        WaterbirdsConfig(
            name="waterbirds",
            folder_names=("waterbird_complete95_forest2water2",),
            expected="waterbird_complete95_forest2water2/metadata.csv (columns img_filename, y, split and place) "
            "with the images it names",
        )
    ]
