"""Shared by the builders that read folders: sorted listings, names for the cache, and errors that reach the user."""

import hashlib
import logging
import os
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import datasets
from datasets.exceptions import DatasetGenerationError

from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class File(NamedTuple):
    """A file as its folder lists it; size in bytes, time of the last change in nanoseconds."""

    path: str
    size: int
    modified: int


def find_folder(data_dir: str | None, dataset: str, names: Sequence[str], expected: str) -> str:
    """The absolute folder of a data set: below data_dir by one of its names, or else data_dir itself.

    Args:
        data_dir: The folder of the data set, or one that holds several.
        dataset: The name as in --dataset; a folder of this name may hold the data set too.
        names: What its authors call the folder.
        expected: What the folder should look like, for messages.

    Raises:
        UserError: data_dir is None or does not exist.
    """
    if data_dir is None:
        raise UserError(
            f"--dataset {dataset} needs --data_dir: the folder of the data set ({expected}), or one that holds it."
        )
    data_dir = os.path.abspath(data_dir)
    if not os.path.isdir(data_dir):
        raise UserError(
            f"--data_dir {data_dir}, which should hold {dataset}, does not exist: was it moved or renamed?"
        )
    holders = [folder for folder in (os.path.join(data_dir, dataset), data_dir) if os.path.isdir(folder)]
    found = [folder for holder in holders for name in names if os.path.isdir(folder := os.path.join(holder, name))]
    return [*found, *holders][0]


def file_at(path: str) -> File:
    """A file that is known to exist."""
    status = os.stat(path)
    return File(path, status.st_size, status.st_mtime_ns)


def content_id(*content: Any) -> str:
    """A short digest of what a folder holds, for the name of its cache: a changed folder is then read again."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def prepare(builder: datasets.GeneratorBasedBuilder, split: str, num_proc: int | None = None) -> datasets.Dataset:
    """Prepare a data set if it is not in the cache, and open one split.

    Raises:
        UserError: The one that the builder raised while it read the data; `datasets` wraps it.
    """
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def class_root(own_folder: str | None, data_dir: str | None, name: str) -> str:
    """The absolute folder of class folders: own_folder/name or own_folder itself where given, else data_dir/name."""
    folder = own_folder or data_dir
    if folder is None:
        raise UserError(f"There is no folder to read {name} from: give --data_dir.")
    folder = os.path.abspath(folder)
    if os.path.isfile(folder):
        raise UserError(f"{folder}, which should hold the {name}, is a file: name a folder.")
    if not os.path.isdir(folder):
        raise UserError(f"The folder {folder}, which should hold the {name}, does not exist: was it moved or renamed?")
    inner = os.path.join(folder, name)
    if os.path.isdir(inner):
        refuse_escape(inner, folder)
        return inner
    if own_folder is None:
        flag = {"images": "--images_dir", "masks": "--masks"}[name]
        raise UserError(f"The folder {folder} has no folder {name!r} in it: add it, or name another one with {flag}.")
    return folder


def list_class_folders(root: str, suffixes: tuple[str, ...], tables: Sequence[str] = ()) -> dict[str, list[File]]:
    """The files of every class folder below root that end in one of the suffixes.

    A warning counts other entries, except the tables that belong beside the class folders.
    """
    classes, ignored = {}, []
    for folder in visible_entries(root, root):
        if folder.name in tables:
            continue
        if not folder.is_dir():
            ignored.append(folder.path)
            continue
        files = classes[normalised(folder.name)] = []
        for entry in visible_entries(folder.path, root):
            if entry.is_file() and entry.name.lower().endswith(suffixes):
                files.append(File(entry.path, entry.stat().st_size, entry.stat().st_mtime_ns))
            else:
                ignored.append(entry.path)
    if ignored:
        logger.warning(
            "%s: %d entries are not <class>/<file> ending in %s and are not read (first: %s).",
            root,
            len(ignored),
            ", ".join(suffixes),
            ignored[0],
        )
    return classes


def visible_entries(folder: str, root: str) -> list[os.DirEntry]:
    """The entries of a folder without hidden files, sorted; links out of the root are refused."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name != "Thumbs.db"]
    for entry in visible:
        if entry.is_symlink():
            refuse_escape(entry.path, root)
        if not entry.name.isascii() and os.fsencode(entry.name).decode(errors="ignore") != entry.name:
            raise UserError(f"The file name {entry.name!r} in {folder} is not UTF-8: rename the file.")
    return sorted(visible, key=lambda entry: normalised(entry.name))


def refuse_escape(path: str, folder: str) -> None:
    """Raise a UserError if a path leads out of a folder by a link, or to nothing."""
    target, folder = os.path.realpath(path), os.path.realpath(folder)
    if os.path.commonpath([target, folder]) != folder or not os.path.exists(target):
        raise UserError(
            f"{path} is a symbolic link that leads out of {folder} or to nothing: put the file itself there, "
            "or name the folder it lies in."
        )


def normalised(name: str) -> str:
    """A file name with composed accents: file systems differ in how they store them, but ids and pairs must agree."""
    return unicodedata.normalize("NFC", name)


def file_name(file: File) -> str:
    """The last part of its path."""
    return normalised(os.path.basename(file.path))


def stem(file: File) -> str:
    """The last part of its path without the suffix."""
    return os.path.splitext(file_name(file))[0]
