"""The base of the benchmarks that are folders of images by class."""

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets

from hf_robustvit.builders.listing import IMAGE_SUFFIXES, File, content_id, file_name, find_folder, list_class_folders
from hf_robustvit.errors import UserError


logger = logging.getLogger(__name__)


class LabelledImage(NamedTuple):
    """One row: an image and its class; `extra` are further columns."""

    image_id: str
    class_name: str
    image: File
    extra: Mapping[str, Any] = {}


@dataclass
class ClassFolderConfig(datasets.BuilderConfig):
    """A benchmark and the folder it is in; `name` is the one of --dataset.

    Args:
        folder_names: What its authors call the folder.
        expected: How the folder looks, for messages.
        tables: Files that belong beside the class folders.
    """

    folder_names: tuple[str, ...] = ()
    expected: str = ""
    tables: tuple[str, ...] = ()

    @functools.cached_property
    def root(self) -> str:
        """The folder of the data set: data_dir, or the one in it with a known name."""
        return find_folder(self.data_dir, self.name, self.folder_names, self.expected)

    @property
    def images_root(self) -> str:
        """The folder of the class folders."""
        return self.root

    @property
    def classes(self) -> Mapping[str, str]:
        """The class of every folder that counts, in label order."""
        raise NotImplementedError

    @property
    def uncounted_folders(self) -> Sequence[str]:
        """Folders that belong to the data set and have no class."""
        return ()

    @property
    def extra_features(self) -> Mapping[str, Any]:
        """The features of further columns."""
        return {}

    def extra(self, folder: str, image: File) -> Mapping[str, Any]:
        """The further columns of an image."""
        return {}

    @functools.cached_property
    def folders(self) -> dict[str, list[File]]:
        """The folders that have images; folders and files sorted by name."""
        listed = list_class_folders(self.images_root, IMAGE_SUFFIXES, self.tables)
        folders = {name: files for name, files in listed.items() if files}
        if not folders:
            raise UserError(
                f"--dataset {self.name}: {self.images_root} has no class folders with images. "
                f"Expected {self.expected}; --data_dir names this folder or the one that holds it."
            )
        return folders

    @functools.cached_property
    def images(self) -> list[LabelledImage]:
        """The rows, by label and then by file name."""
        unknown = sorted(set(self.folders) - set(self.classes) - set(self.uncounted_folders))
        if unknown:
            raise UserError(
                f"--dataset {self.name}: {len(unknown)} of the {len(self.folders)} folders of images in "
                f"{self.images_root} are not among its classes (first: {unknown[0]}): is this {self.expected}?"
            )
        empty = [folder for folder in self.classes if folder not in self.folders]
        if empty:
            logger.warning(
                "%s: %d of its %d class folders have no image in %s (first: %s).",
                self.name,
                len(empty),
                len(self.classes),
                self.images_root,
                empty[0],
            )
        images = [
            LabelledImage(f"{folder}/{file_name(image)}", class_name, image, self.extra(folder, image))
            for folder, class_name in self.classes.items()
            for image in self.folders.get(folder, [])
        ]
        if not images:
            raise UserError(
                f"--dataset {self.name}: {self.images_root} has no image of its classes. Expected {self.expected}."
            )
        return images

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after every file's path, size and time, so that a changed folder is read again."""
        content = content_id(*self.classes.items(), *self.images)
        return super().create_config_id({"content": content}, custom_features)


class ClassFolders(datasets.GeneratorBasedBuilder):
    """Builder of a benchmark of class folders; its one split is `test`.

    Rows: `image`, `label`, `image_id` (the path below the class folders' root). They point to the files; nothing is
    copied. Files that are not images are skipped with a warning. Arguments: `config_name`, `data_dir`, `cache_dir`.

    Raises:
        UserError: The folder is missing or empty, or has folders of images that are not classes of the benchmark.
    """

    VERSION = datasets.Version("1.0.0")

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=datasets.Features(self._features()))

    def _features(self) -> dict[str, Any]:
        return {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(dict.fromkeys(self.config.classes.values()))),
            "image_id": datasets.Value("string"),
            **self.config.extra_features,
        }

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(datasets.Split.TEST, gen_kwargs={"images": self.config.images})]

    def _generate_examples(self, images: list[LabelledImage]) -> Iterator[tuple[str, dict]]:
        for row in images:
            columns = {"image": row.image.path, "label": row.class_name, "image_id": row.image_id}
            yield row.image_id, columns | dict(row.extra)


def index_ranges(text: str) -> tuple[int, ...]:
    """The numbers of a text such as "3 7-9", ranges with both ends."""
    ends = [[int(end) for end in part.split("-")] for part in text.split()]
    return tuple(number for first, *last in ends for number in range(first, (last or [first])[0] + 1))
