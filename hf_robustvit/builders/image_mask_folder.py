"""A user's folder: images by class, and their foreground masks.

<folder>/images/<class>/*, masks in <folder>/masks/<class>/<same stem>.png
<folder>/<class>/*, masks in another folder
"""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import datasets

from hf_robustvit.builders.listing import (
    IMAGE_SUFFIXES,
    File,
    class_root,
    content_id,
    file_name,
    list_class_folders,
    normalised,
    prepare,
    stem,
    visible_entries,
)
from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

MASK_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# Names of split folders; a refusal suggests the first of these that is there.
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


class MissingMasksError(UserError):
    """Some images of a folder have a mask, and others have none."""


class Pair(NamedTuple):
    """One row: an image, its class and its mask (None where the set is read without masks)."""

    image_id: str
    class_name: str
    image: File
    mask: File | None


@dataclass
class ImageMaskFolderConfig(datasets.BuilderConfig):
    """Where the folder is and how it is read.

    Args:
        data_dir: The folder that holds `images` and `masks`; with neither in it, the class folders themselves.
        images_dir: Where the images are when they are not in data_dir/images: a folder of class folders, or one that
            holds them in a folder named `images`.
        masks_dir: Where the masks are when they are not in data_dir/masks, in the same two forms.
        with_masks: False reads the images only, for evaluation.
        skip_missing_masks: Leave out the images that have no mask, and log how many; otherwise they are an error.
    """

    images_dir: str | None = None
    masks_dir: str | None = None
    with_masks: bool = True
    skip_missing_masks: bool = False

    @property
    def is_bare(self) -> bool:
        """Whether data_dir holds the class folders themselves."""
        parts = [os.path.join(self.data_dir or "", part) for part in ("images", "masks")]
        return self.images_dir is None and not any(map(os.path.lexists, parts))

    @functools.cached_property
    def images(self) -> dict[str, list[File]]:
        """The images of every class; classes and files sorted."""
        root = class_root(self.data_dir if self.is_bare else self.images_dir, self.data_dir, "images")
        _refuse_splits(root)
        images = list_class_folders(root, IMAGE_SUFFIXES)
        empty = [name for name, files in images.items() if not files]
        if empty or not images:
            found = (
                f"class folders without an image: {len(empty)} (first: {empty[0]})" if empty else "no class folders"
            )
            raise UserError(
                f"{root} has {found}. Expected images/<class>/<image> or <class>/<image>; fill or remove empty "
                "folders."
            )
        return images

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """The rows of the data set, sorted by image_id."""
        images, masks, root = self.images, {}, None
        if self.with_masks:
            if self.is_bare and self.masks_dir is None:
                raise UserError(
                    f"{self.data_dir} holds images by class and no masks: name a folder of masks with --masks, or "
                    "let --masks tokencut make them."
                )
            root = class_root(self.masks_dir, self.data_dir, "masks")
            for name, files in list_class_folders(root, MASK_SUFFIXES).items():
                # Of two masks with one stem the PNG, which lost nothing.
                files = sorted(files, key=lambda file: file.path.lower().endswith(".png"))
                masks |= {(name, stem(file)): file for file in files}
        pairs = sorted(
            Pair(f"{name}/{file_name(image)}", name, image, masks.get((name, stem(image))))
            for name, files in images.items()
            for image in files
        )
        return self._refuse_unpaired(pairs, root) if self.with_masks else pairs

    def _refuse_unpaired(self, pairs: list[Pair], masks_root: str) -> list[Pair]:
        images_of_mask = Counter(pair.mask for pair in pairs if pair.mask)
        shared = [pair.image_id for pair in pairs if images_of_mask[pair.mask] > 1]
        if shared:
            raise UserError(
                f"{len(shared)} images have the stem of another image of their class and would share its mask "
                f"(first: {shared[0]}): rename them."
            )
        missing = [pair.image_id for pair in pairs if pair.mask is None]
        if not missing:
            return pairs
        found = f"{len(missing)} of {len(pairs)} images have no mask in {masks_root} (first: {missing[0]})"
        if not self.skip_missing_masks or len(missing) == len(pairs):
            kind = UserError if len(missing) == len(pairs) else MissingMasksError
            raise kind(
                f"{found}. Expected <class>/<stem of the image>.png: add the masks, remove these images, "
                "or name another folder with --masks."
            )
        logger.warning("%s; they are left out.", found)
        return [pair for pair in pairs if pair.mask]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after every file's path, size and time, so that a changed folder is read again."""
        return super().create_config_id({"content": content_id(*self.images, *self.pairs)}, custom_features)


class ImageMaskFolder(datasets.GeneratorBasedBuilder):
    """Builder of a folder of images by class, with masks of the same stems; its one split is `train`.

    Rows: `image`, `mask` (as stored; `hf_robustvit.data.foreground_mask` describes how it is read), `label` (the
    classes are the sorted folder names) and `image_id` (the path below images/). Rows point to the files, nothing is
    copied. Hidden files are skipped; so are, with a warning, files and folders that are not images. The arguments are
    `cache_dir`, `data_dir` and the fields of `ImageMaskFolderConfig`.

    Raises:
        UserError: A folder or a mask is missing, a class folder has no image, the folders are splits and not classes,
            two images of a class have the same stem, or a symbolic link leads out of the folder.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = ImageMaskFolderConfig

    def _info(self) -> datasets.DatasetInfo:
        features = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(self.config.images)),
            "image_id": datasets.Value("string"),
        }
        if self.config.with_masks:
            features["mask"] = datasets.Image()
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(datasets.Split.TRAIN, gen_kwargs={"pairs": self.config.pairs})]

    def _generate_examples(self, pairs: list[Pair]) -> Iterable[tuple[str, dict]]:
        for pair in pairs:
            row = {"image": pair.image.path, "label": pair.class_name, "image_id": pair.image_id}
            yield pair.image_id, row | ({"mask": pair.mask.path} if pair.mask else {})


def load_image_mask_folder(
    data_dir: str | os.PathLike,
    images_dir: str | os.PathLike | None = None,
    masks_dir: str | os.PathLike | None = None,
    with_masks: bool = True,
    skip_missing_masks: bool = False,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
) -> datasets.Dataset:
    """Read a folder of images and masks into a data set.

    Args:
        data_dir: The folder; for it and the next four see `ImageMaskFolderConfig`.
        images_dir: Another folder for the images.
        masks_dir: Another folder for the masks.
        with_masks: Whether rows have a mask.
        skip_missing_masks: Whether images without a mask are left out.
        cache_dir: Where the prepared table is kept; the cache of `datasets` when None.
        num_proc: Processes that prepare it.

    Returns:
        The rows of `ImageMaskFolder`, sorted by `image_id`.

    Raises:
        UserError: As `ImageMaskFolder`.
    """
    folders = {"data_dir": data_dir, "images_dir": images_dir, "masks_dir": masks_dir}
    builder = ImageMaskFolder(
        cache_dir=cache_dir,
        with_masks=with_masks,
        skip_missing_masks=skip_missing_masks,
        **{name: os.path.abspath(folder) for name, folder in folders.items() if folder is not None},
    )
    return prepare(builder, "train", num_proc)


def load_evaluation_folder(path: str) -> datasets.Dataset:
    """The images of a user's folder, with their masks if every image has one.

    Raises:
        UserError: The folder is not laid out as expected, or no mask belongs to any of the images.
    """
    reason = "it has no folder 'masks'"
    if os.path.lexists(os.path.join(path, "masks")):
        try:
            return load_image_mask_folder(path)
        except MissingMasksError as error:
            reason = str(error)
    rows = load_image_mask_folder(path, with_masks=False)
    logger.warning("%s is evaluated without masks: %s", path, reason)
    return rows


def load_images(folder: str | os.PathLike, cache_dir: str | os.PathLike | None = None) -> datasets.Dataset:
    """Read the images of a folder, whether by class or without classes (and then without `label`).

    Args:
        folder: Holds the images, or a folder `images` that does.
        cache_dir: As for `load_image_mask_folder`.

    Raises:
        UserError: As `ImageMaskFolder`.
    """
    root = class_root(os.fspath(folder), None, "images")
    entries = visible_entries(root, root)
    images = [entry for entry in entries if entry.is_file() and entry.name.lower().endswith(IMAGE_SUFFIXES)]
    if not images or any(entry.is_dir() for entry in entries):
        return load_image_mask_folder(folder, images_dir=folder, with_masks=False, cache_dir=cache_dir)
    rows = {"image": [image.path for image in images], "image_id": [normalised(image.name) for image in images]}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def _refuse_splits(root: str) -> None:
    """Raise a UserError where the folders are train, val and test, each with the classes in it."""
    folders = [entry for entry in visible_entries(root, root) if entry.is_dir()]
    splits = {folder.name.lower(): folder.path for folder in folders}
    if folders and splits.keys() <= set(SPLITS):
        if all(any(entry.is_dir() for entry in visible_entries(path, root)) for path in splits.values()):
            first = next(splits[name] for name in SPLITS if name in splits)
            raise UserError(
                f"{root} holds splits, not classes ({', '.join(folder.name for folder in folders)}): name the folder "
                f"of one of them, for example {first}."
            )
