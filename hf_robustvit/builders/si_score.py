"""SI-Score: cut-out objects pasted on backgrounds at varied locations, rotations and sizes, as its authors ship it."""

import csv
import functools
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.class_folders import ClassFolderConfig, ClassFolders, LabelledImage
from hf_robustvit.builders.listing import stem
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import SI_SCORE


logger = logging.getLogger(__name__)

# Our columns and those of metadata.csv: the share of the image that the object's square covers, degrees, and the
# centre of the object as shares of the image's width and height.
FACTORS = {"area": "area", "rotation": "rotation", "x": "x_coord", "y": "y_coord"}
# Together they name the object that was pasted.
FOREGROUND = ("foreground_class", "foreground_instance")


@dataclass
class SIScoreConfig(ClassFolderConfig):
    """One of the three sets: `<class name>/<image id>.jpg`, and metadata.csv where it was downloaded too."""

    tables: tuple[str, ...] = ("foreground_classes.csv", "metadata.csv")

    @property
    def classes(self) -> Mapping[str, str]:
        # The table has 112 names, of which the authors' images have 61.
        present = {name: name for name in sorted(SI_SCORE) if name in self.folders}
        return present or {name: name for name in SI_SCORE}

    @functools.cached_property
    def factors(self) -> dict[str, dict[str, float | str]]:
        """The factors and the object of every image by its id; empty without metadata.csv."""
        path = os.path.join(self.root, "metadata.csv")
        if not os.path.exists(path):
            return {}
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return {
                    row["image_id"].removesuffix(".jpg"): {
                        column: float(row[theirs]) for column, theirs in FACTORS.items() if row.get(theirs)
                    }
                    | ({"object": "/".join(map(row.get, FOREGROUND))} if all(map(row.get, FOREGROUND)) else {})
                    for row in csv.DictReader(file)
                }
        except (KeyError, ValueError, csv.Error) as error:
            raise UserError(
                f"--dataset {self.name}: {path} cannot be read ({error}). Expected the columns image_id and "
                f"{', '.join(FACTORS.values())}: download it again, or remove it to do without."
            ) from error

    @functools.cached_property
    def images(self) -> list[LabelledImage]:
        if "object" not in self.columns:
            logger.warning(
                "%s: no metadata.csv with the columns %s names the objects, each of which is in many images; "
                "intervals are by image and too narrow.",
                self.name,
                " and ".join(FOREGROUND),
            )
        nothing = dict.fromkeys(self.columns)
        return [
            row._replace(extra=nothing | self.factors.get(stem(row.image), {})) if nothing else row
            for row in super().images
        ]

    @functools.cached_property
    def columns(self) -> list[str]:
        """What metadata.csv has: the object, and which of the factors."""
        present = {column for factors in self.factors.values() for column in factors}
        return [column for column in ("object", *FACTORS) if column in present]


class SIScore(ClassFolders):
    """Builder of the three sets; the label names are the names of the folders that have images.

    Where metadata.csv has them there are the columns `object`, `area`, `rotation`, `x` and `y`, None for images it
    lacks.
    """

    BUILDER_CONFIGS = [
        SIScoreConfig(
            name="si-score-location",
            folder_names=("object_location", "location20_area02_min0pc", "location"),
            expected="object_location/<class name>/*.jpg",
        ),
        SIScoreConfig(
            name="si-score-rotation",
            folder_names=("object_rotation", "rotation"),
            expected="object_rotation/<class name>/*.jpg",
        ),
        SIScoreConfig(
            name="si-score-size",
            folder_names=("object_size", "area", "size"),
            expected="object_size/<class name>/*.jpg",
        ),
    ]

    def _features(self) -> dict[str, Any]:
        kinds = dict.fromkeys(FACTORS, "float64") | {"object": "string"}
        return super()._features() | {column: datasets.Value(kinds[column]) for column in self.config.columns}
