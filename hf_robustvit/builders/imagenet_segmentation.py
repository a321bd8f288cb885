"""The ImageNet segmentation test set of Guillaumin, Kuettel and Ferrari: 4,276 photographs with the object's mask."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import datasets
import numpy as np

from hf_robustvit.builders.listing import File, content_id, file_at, find_folder
from hf_robustvit.errors import UserError


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
        return [datasets.SplitGenerator(datasets.Split.TEST, gen_kwargs={"path": path, "numbers": numbers})]

    def _generate_examples(self, path: str, numbers: list[int]) -> Iterator[tuple[str, dict]]:
        with _open(path) as file:  # here, not earlier: an open file cannot be sent to another process
            for number in numbers:
                # MATLAB's cells are references, and its arrays are stored with the axes in reverse.
                image = np.array(file[file["value/img"][number, 0]]).T  # (height, width, 3)
                first_annotator = file[file["value/gt"][number, 0]][0, 0]
                mask = np.array(file[first_annotator]).T > 0  # (height, width)
                image_id = f"{number:05d}"
                yield image_id, {"image": image, "mask": mask.astype(np.uint8) * 255, "image_id": image_id}


def _open(path: str):
    """The file, open for reading; MATLAB 7.3 writes HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f'--dataset imagenet-segmentation needs h5py to read {path}: pip install "hf-robustvit[segmentation]".'
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"--dataset imagenet-segmentation: {path} is not an HDF5 file ({error}); download it again."
        ) from error
    if "value/img" not in file or "value/gt" not in file:
        raise UserError(f"--dataset imagenet-segmentation: {path} lacks value/img or value/gt; download it again.")
    return file
