"""The ImageNet segmentation test set of Guillaumin, Kuettel and Ferrari: 4,276 photographs with the object's mask."""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasets
import numpy as np
from PIL import Image

from hf_robustvit.builders.listing import File, content_id, file_at, find_folder
from hf_robustvit.errors import UserError


if TYPE_CHECKING:
    import h5py

FILE_NAME = "gtsegs_ijcv.mat"


@dataclass
class ImageNetSegmentationConfig(datasets.BuilderConfig):
    """Where the file is: data_dir is its folder, or the file itself."""

    @functools.cached_property
    def file(self) -> File:
        """The .mat file."""
        if self.data_dir is not None and os.path.isfile(self.data_dir):
            return file_at(os.path.abspath(self.data_dir))
        folder = find_folder(self.data_dir, self.name, [], FILE_NAME)
        path = os.path.join(folder, FILE_NAME)
        if not os.path.exists(path):
            raise UserError(
                f"--dataset {self.name}: {folder} has no file {FILE_NAME}; name its folder with --data_dir."
            )
        return file_at(path)

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache after the file's path, size and time, so that a changed one is read again."""
        return super().create_config_id({"content": content_id(self.file)}, custom_features)


class ImageNetSegmentation(datasets.GeneratorBasedBuilder):
    """Builder of the test set; its one split is `test`. Arguments: `data_dir`, `cache_dir`.

    Rows: `image` (RGB), `mask` (8-bit grey, 255 is the object) and `image_id` (the number of the image in the file).
    There is no label: the test explains the class that is predicted. The file holds bare pixels, so that images are
    copied into the cache, as PNG. Of several annotators the first one counts, as in the paper's code.

    Raises:
        UserError: The file is missing or is not the one expected, or h5py is not installed.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = ImageNetSegmentationConfig
    BUILDER_CONFIGS = [ImageNetSegmentationConfig(name="imagenet-segmentation")]
    DEFAULT_CONFIG_NAME = "imagenet-segmentation"

    def _info(self) -> datasets.DatasetInfo:
        features = {"image": datasets.Image(), "mask": datasets.Image(), "image_id": datasets.Value("string")}
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        path = self.config.file.path
        with _open(path) as file:
            numbers = list(range(len(file["value/img"])))
            if not numbers:
                raise ValueError("it has no image")
        return [datasets.SplitGenerator(datasets.Split.TEST, gen_kwargs={"path": path, "numbers": numbers})]

    def _generate_examples(self, path: str, numbers: list[int]) -> Iterator[tuple[str, dict]]:
        with _open(path) as file:  # here, not earlier: an open file cannot be sent to another process
            for number in numbers:
                # MATLAB's cells are references, and its arrays are stored with the axes in reverse.
                image = file[file["value/img"][number, 0]]  # (3, width, height)
                mask = file[file[file["value/gt"][number, 0]][0, 0]]  # (width, height), of the first annotator
                if image.dtype != np.uint8 or image.shape != (3, *mask.shape) or mask.size > Image.MAX_IMAGE_PIXELS:
                    raise ValueError(f"image {number} has the shape {image.shape}, its mask {mask.shape}")
                foreground = (mask[()].T > 0).astype(np.uint8) * 255
                image_id = f"{number:05d}"
                yield image_id, {"image": image[()].T, "mask": foreground, "image_id": image_id}


@contextlib.contextmanager
def _open(path: str) -> Iterator["h5py.File"]:
    """The file, open for reading; MATLAB 7.3 writes HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f'--dataset imagenet-segmentation needs h5py to read {path}: pip install "hf-robustvit[segmentation]".'
        ) from error
    try:
        with h5py.File(path, "r") as file:
            if "value/img" not in file or "value/gt" not in file:
                raise UserError(
                    f"--dataset imagenet-segmentation: {path} lacks value/img or value/gt; download it again."
                )
            yield file
    except UserError:
        raise
    except Exception as error:  # on broken files h5py raises almost anything
        raise UserError(
            f"--dataset imagenet-segmentation: {path} is not its authors' HDF5 file ({error}); download it again."
        ) from error
