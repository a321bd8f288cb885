"""Composites: the objects of a folder's photographs on backgrounds, one factor at a time, as SI-Score does it.

<data_dir>/images/<class>/*, masks in <data_dir>/masks/<class>/<same stem>.png
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from hf_robustvit.builders.image_mask_folder import ImageMaskFolderConfig, Pair
from hf_robustvit.builders.listing import (
    IMAGE_SUFFIXES,
    File,
    content_id,
    file_at,
    file_name,
    find_folder,
    normalised,
    prepare,
    visible_entries,
)
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.data.composites import (
    FACTORS,
    GRIDS,
    NUM_BACKGROUNDS,
    REASONS,
    VERSION,
    CompositeRenderer,
    choose_backgrounds,
    object_box,
    object_fault,
)
from hf_robustvit.data.masks import NO_FLAGS, MaskReading, fills_border
from hf_robustvit.data.pairs import PairError, read_row, refuse_inverted
from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

EXPECTED = "images/<class>/* and masks/<class>/*.png"
PREFIX = "composites-"


@dataclass
class CompositesConfig(ImageMaskFolderConfig):
    """A folder of photographs with masks, and where backgrounds come from.

    Args:
        backgrounds: A folder of images, in folders or not. None: the other photographs.
        reading: How masks are read.
    """

    skip_missing_masks: bool = True
    backgrounds: str | None = None
    reading: MaskReading = NO_FLAGS

    @property
    def factor(self) -> str:
        """The factor that is varied."""
        return self.name.removeprefix(PREFIX)

    @functools.cached_property
    def background_files(self) -> dict[str, File]:
        """The images of the folder of backgrounds by their paths below it; none where there is no folder."""
        if self.backgrounds is None:
            return {}
        folder = os.path.abspath(self.backgrounds)
        if not os.path.isdir(folder):
            raise UserError(f"--backgrounds {folder} does not exist: was it moved or renamed?")
        files = {normalised(os.path.relpath(file.path, folder)): file for file in _images_below(folder, folder)}
        if not files:
            raise UserError(f"--backgrounds {folder} holds no images: name another folder, or leave it out.")
        return files

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after everything that the rows depend on."""
        rules = REASONS, GRIDS, NUM_BACKGROUNDS  # the reasons name their thresholds
        content = content_id(*self.images, *self.pairs, self.background_files, self.reading.settings(), *rules)
        return datasets.BuilderConfig.create_config_id(self, {"content": content}, custom_features)


class CompositeObjects(datasets.GeneratorBasedBuilder):
    """Builder of the photographs of a folder, each held against the rule for objects (`object_fault`).

    Rows: `image_id`, `image` and `mask` (paths), `class_name`, `reason` (a key of `REASONS`; empty where the object is
    taken), `fault` (what an unreadable file's message says), and where the object is: `area`, `rotation`, `x`, `y`.
    """

    VERSION = datasets.Version(VERSION)
    BUILDER_CONFIG_CLASS = CompositesConfig

    def _info(self) -> datasets.DatasetInfo:
        texts = ("image_id", "image", "mask", "class_name", "reason", "fault")
        numbers = ("area", "rotation", "x", "y")
        return datasets.DatasetInfo(
            features=datasets.Features(
                dict.fromkeys(texts, datasets.Value("string"))
                | dict.fromkeys(numbers, datasets.Value("float64"))
                | {"fills_border": datasets.Value("bool")}
            )
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(datasets.Split.TEST)]

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        paired = {pair.image_id: pair for pair in self.config.pairs}
        for class_name, files in self.config.images.items():
            for file in files:
                image_id = f"{class_name}/{file_name(file)}"
                row = {"image_id": image_id, "image": file.path, "class_name": class_name}
                yield image_id, row | _judge(paired.get(image_id), self.config.reading)


class Composites(datasets.GeneratorBasedBuilder):
    """Builder of the four sets, `composites-location`, `-rotation`, `-size` and `-background`.

    Rows: `image` and `mask` (of the object's photograph); `background` (its name), `background_image` and
    `background_mask` (paths; the latter where it is another photograph, whose own object is removed); `label` (the
    classes are the sorted folder names); `image_id` (<photograph>|<factor>|<value>); `object` (the photograph);
    `factor`; `value` (the area, the angle, "<x>,<y>", or the background's name); and where the object goes: `area`,
    `rotation`, `x`, `y`, as in `hf_robustvit.data.composites.GRIDS`. Rows of one object follow each other. They hold
    no pictures: `CompositeRenderer` makes these. The arguments are `cache_dir`, `data_dir` and the fields of
    `CompositesConfig`.

    Raises:
        UserError: As `ImageMaskFolder`; no object can be taken; or there is no background.
    """

    VERSION = datasets.Version(VERSION)
    BUILDER_CONFIG_CLASS = CompositesConfig
    BUILDER_CONFIGS = [CompositesConfig(name=PREFIX + factor, version=VERSION) for factor in FACTORS]

    def _info(self) -> datasets.DatasetInfo:
        texts = ("background_image", "background_mask", "image_id", "object", "factor", "background")
        return datasets.DatasetInfo(
            features=datasets.Features(
                {
                    "image": datasets.Image(),
                    "mask": datasets.Image(),
                    "label": datasets.ClassLabel(names=list(self.config.images)),
                    "value": datasets.Value("float64" if self.config.factor in ("rotation", "size") else "string"),
                }
                | dict.fromkeys(texts, datasets.Value("string"))
                | dict.fromkeys(("area", "rotation", "x", "y"), datasets.Value("float64"))
            )
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(datasets.Split.TEST)]

    def _generate_examples(self) -> Iterator[tuple[str, dict]]:
        config = self.config
        objects = load_objects(config.data_dir, config.reading, self._cache_dir_root).to_list()
        taken = [row for row in objects if not row["reason"]]
        if not taken:
            faults = [row["fault"] for row in objects if row["fault"]]
            raise UserError(
                f"--dataset {config.name}: {config.data_dir} has no object that can be cut out; of {len(objects)} "
                f"photographs, {told(_left_out(objects))}{f' (first: {faults[0]})' if faults else ''}."
            )
        for row in taken:
            chosen = self._backgrounds(row, taken)
            shared = {"image": row["image"], "mask": row["mask"], "label": row["class_name"]}
            shared |= {"object": row["image_id"], "factor": config.factor}
            if config.factor == "background":
                place = {name: row[name] for name in ("area", "rotation", "x", "y")}
                composites = [(background["background"], background | place) for background in chosen]
            else:
                composites = [(value, chosen[0] | place) for value, place in GRIDS[config.factor].items()]
            for value, rest in composites:
                image_id = f"{row['image_id']}|{config.factor}|{value}"
                yield image_id, shared | rest | {"image_id": image_id, "value": value}

    def _backgrounds(self, row: Mapping[str, Any], taken: list[dict]) -> list[dict[str, str | None]]:
        """An object's backgrounds: of the folder, or else photographs of other classes whose objects are taken."""
        files = self.config.background_files
        if files:
            names = list(files)
            found = [(name, files[name].path, None) for name in names]
        else:
            others = [other for other in taken if other["class_name"] != row["class_name"]]
            found = [(other["image_id"], other["image"], other["mask"]) for other in others]
        if not found:
            raise UserError(
                f"--dataset {self.config.name}: all objects of {self.config.data_dir} are of one class, and there is "
                "no photograph of another one to put them on: name a folder of images with --backgrounds."
            )
        chosen = choose_backgrounds(row["image_id"], [name for name, *_ in found], NUM_BACKGROUNDS)
        columns = ("background", "background_image", "background_mask")
        return [dict(zip(columns, found[position], strict=True)) for position in chosen]


def load_objects(data_dir: str, reading: MaskReading = NO_FLAGS, cache_dir: str | None = None) -> datasets.Dataset:
    """The photographs of a folder and which objects are taken, rows as `CompositeObjects`.

    Raises:
        UserError: Most masks look inverted; or as `ImageMaskFolder`.
    """
    rows = prepare(CompositeObjects(data_dir=data_dir, reading=reading, cache_dir=cache_dir), "test")
    refuse_inverted([bool(fills) for fills in rows["fills_border"]], rows["image_id"][:], reading)
    return rows


def load_composites(
    name: str,
    data_dir: str | None,
    backgrounds: str | None = None,
    reading: MaskReading = NO_FLAGS,
    keep: Callable[[str], bool] | None = None,
    cache_dir: str | None = None,
) -> BenchmarkRows:
    """Load one of the four sets, with what renders it and how many objects were left out.

    Args:
        name: "composites-location", "composites-rotation", "composites-size" or "composites-background".
        data_dir: The folder of images and masks, or one that holds it by the name "composites".
        backgrounds: A folder of images to put the objects on; the other photographs without it.
        reading: How masks are read.
        keep: From a photograph's image_id to whether it may serve as an object; without it, all may. Backgrounds do
            not depend on it.
        cache_dir: Where prepared data sets are kept; the default is that of `datasets`.

    Raises:
        UserError: As `Composites`, or none of the objects to keep is taken.
    """
    folder = find_folder(data_dir, "composites", [], EXPECTED)
    if not os.path.isdir(os.path.join(folder, "masks")):
        raise UserError(
            f"--dataset {name}: {folder} has no folder 'masks'. Expected {EXPECTED}; hf-robustvit masks makes them."
        )
    builder = Composites(
        config_name=name, data_dir=folder, backgrounds=backgrounds, reading=reading, cache_dir=cache_dir
    )
    rows = prepare(builder, "test")
    objects = load_objects(folder, reading, cache_dir).to_list()
    if keep:
        objects = [row for row in objects if keep(row["image_id"])]
        rows = rows.select([position for position, photo in enumerate(rows["object"]) if keep(photo)])
    left_out = _left_out(objects)
    if not len(rows):
        raise UserError(
            f"--dataset {name}: none of the photographs that are kept has a usable object ({told(left_out)})."
        )
    logger.info(
        "%s: the objects of %d of %d photographs are taken; %s.",
        *(name, len(objects) - sum(left_out.values()), len(objects), told(left_out) or "none is left out"),
    )
    return BenchmarkRows(
        name, rows, is_own_folder=True, reading=reading, render=CompositeRenderer(reading), left_out=left_out
    )


def told(left_out: Mapping[str, int]) -> str:
    """How many objects were left out and why, as a part of a sentence."""
    return ", ".join(f"{count} {REASONS[reason]}" for reason, count in left_out.items())


def _left_out(objects: list[dict]) -> dict[str, int]:
    counts = Counter(row["reason"] for row in objects)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _judge(pair: Pair | None, reading: MaskReading) -> dict[str, Any]:
    """What the rule says of a photograph's object, and where it is."""
    if pair is None:
        return {"reason": "no_mask"}
    row = {"image": pair.image.path, "mask": pair.mask.path, "image_id": pair.image_id}
    try:
        files = {name: {"path": row[name], "bytes": None} for name in ("image", "mask")}
        mask = read_row(row | files, reading).mask
    except PairError as error:
        if error.problem == "empty":  # a fault of the object and not of its file
            return {"reason": "too_small", "mask": pair.mask.path}
        return {"reason": "unreadable", "fault": str(error), "mask": pair.mask.path}
    fault = object_fault(mask)
    judged = {"reason": fault or "", "mask": pair.mask.path, "fills_border": fills_border(mask)}
    return judged | ({} if fault else object_box(mask))


def _images_below(folder: str, root: str) -> Iterator[File]:
    for entry in visible_entries(folder, root):
        if entry.is_dir():
            yield from _images_below(entry.path, root)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            yield file_at(entry.path)
