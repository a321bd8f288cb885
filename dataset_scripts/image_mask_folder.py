"""A folder of the user's own: images/<class>/* with the foreground masks masks/<class>/<same stem>.png beside it."""

import functools
import hashlib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import datasets

from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png",)


class File(NamedTuple):
    """A file as its folder lists it; size in bytes, time of the last change in nanoseconds."""

    path: str
    size: int
    modified: int


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
        data_dir: The folder that holds `images` and `masks`.
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

    @functools.cached_property
    def images(self) -> dict[str, list[File]]:
        """The images of every class; classes and files sorted."""
        root = _class_root(self.images_dir, self.data_dir, "images")
        images = _list_class_folders(root, IMAGE_SUFFIXES)
        empty = [name for name, files in images.items() if not files]
        if empty or not images:
            found = (
                f"class folders without an image: {len(empty)} (first: {empty[0]})" if empty else "no class folders"
            )
            raise UserError(f"{root} has {found}. Expected images/<class>/<image>; fill or remove empty folders.")
        return images

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """The rows of the data set, sorted by image_id."""
        images, masks, root = self.images, {}, None
        if self.with_masks:
            root = _class_root(self.masks_dir, self.data_dir, "masks")
            for name, files in _list_class_folders(root, MASK_SUFFIXES).items():
                masks |= {(name, _stem(file)): file for file in files}
        pairs = sorted(
            Pair(f"{name}/{_file_name(image)}", name, image, masks.get((name, _stem(image))))
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
            raise UserError(
                f"{found}. Expected <class>/<stem of the image>.png: add the masks, remove these images, "
                "or name another folder with --masks."
            )
        logger.warning("%s; they are left out.", found)
        return [pair for pair in pairs if pair.mask]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after every file's path, size and time, so that a changed folder is read anew."""
        digest = hashlib.sha256(repr(list(self.images)).encode())
        for pair in self.pairs:
            digest.update(repr(pair).encode())
        return super().create_config_id({"content": digest.hexdigest()[:16]}, custom_features)


class ImageMaskFolder(datasets.GeneratorBasedBuilder):
    """Builder of a folder images/<class>/* with masks/<class>/<same stem>.png; its one split is `train`.

    Rows: `image`, `mask` (as the file has it; `hf_robustvit.data.foreground_mask` tells how it is read), `label` (the
    classes are the sorted folder names) and `image_id` (the path below images/). Rows point to the files, nothing is
    copied. Hidden files are skipped, and with a warning files and folders that are no images. The arguments are
    `cache_dir`, `data_dir` and the fields of `ImageMaskFolderConfig`.

    Raises:
        UserError: A folder or a mask is missing, a class folder has no image, two images of a class have the same
            stem, or a symbolic link leads out of the folder.
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
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split="train")


def _class_root(own_folder: str | None, data_dir: str | None, name: str) -> str:
    """The absolute folder of class folders: own_folder/name or own_folder itself where given, else data_dir/name."""
    folder = own_folder or data_dir
    if folder is None:
        raise UserError(f"There is no folder to read {name} from: give --data_dir.")
    folder = os.path.abspath(folder)
    if not os.path.isdir(folder):
        raise UserError(f"The folder {folder}, where {name} are looked for, does not exist: was it moved or renamed?")
    inner = os.path.join(folder, name)
    if os.path.isdir(inner):
        _refuse_escape(inner, folder)
        return inner
    if own_folder is None:
        flag = {"images": "--images_dir", "masks": "--masks"}[name]
        raise UserError(f"The folder {folder} has no folder {name!r} in it: add it, or name another one with {flag}.")
    return folder


def _list_class_folders(root: str, suffixes: tuple[str, ...]) -> dict[str, list[File]]:
    """The files of every class folder below root that end in one of the suffixes; other entries are warned of."""
    classes, ignored = {}, []
    for folder in _visible_entries(root, root):
        if not folder.is_dir():
            ignored.append(folder.path)
            continue
        files = classes[_normalised(folder.name)] = []
        for entry in _visible_entries(folder.path, root):
            if entry.is_file() and entry.name.lower().endswith(suffixes):
                files.append(File(entry.path, entry.stat().st_size, entry.stat().st_mtime_ns))
            else:
                ignored.append(entry.path)
    if ignored:
        logger.warning(
            "%s: %d entries are no <class>/<file> ending in %s and are not read (first: %s).",
            root,
            len(ignored),
            ", ".join(suffixes),
            ignored[0],
        )
    return classes


def _visible_entries(folder: str, root: str) -> list[os.DirEntry]:
    """What is in a folder, hidden files apart, sorted; links out of the root are refused."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "Thumbs.db"]
    for entry in visible:
        if entry.is_symlink():
            _refuse_escape(entry.path, root)
        if not entry.name.isascii() and os.fsencode(entry.name).decode(errors="ignore") != entry.name:
            raise UserError(f"The file name {entry.name!r} in {folder} is not UTF-8: rename the file.")
    return sorted(visible, key=lambda entry: _normalised(entry.name))


def _refuse_escape(path: str, folder: str) -> None:
    target, folder = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([target, folder]) != folder or not os.path.exists(target):
        raise UserError(
            f"{path} is a symbolic link that leads out of {folder} or to nothing: put the file itself there, "
            "or name the folder it lies in with --images_dir or --masks."
        )


def _normalised(name: str) -> str:
    """A file name with composed accents: file systems disagree on their form, ids and pairs must not."""
    return unicodedata.normalize("NFC", name)


def _file_name(file: File) -> str:
    return _normalised(os.path.basename(file.path))


def _stem(file: File) -> str:
    return os.path.splitext(_file_name(file))[0]
