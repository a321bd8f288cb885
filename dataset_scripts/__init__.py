"""One `datasets` builder per data set, and `BENCHMARKS`, the table of their names.

`datasets` refuses loading scripts given by path, so the builders are instantiated here directly, with absolute paths,
sorted listings and a cache key that changes when the source folder changes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import datasets

from dataset_scripts.cutouts import Cutouts
from dataset_scripts.image_mask_folder import load_image_mask_folder
from hf_robustvit.cutouts import BENCHMARK_SPLITS
from hf_robustvit.errors import unknown_name


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark comes from.

    Attributes:
        builder: The `datasets` builder.
        config_name: Which of the builder's configurations.
        imagenet_indices: Class name -> indices among ImageNet's 1000 classes, the first being the paper's. None: the
            names are matched with the model's own label names.
    """

    builder: type[datasets.GeneratorBasedBuilder]
    config_name: str
    imagenet_indices: Mapping[str, tuple[int, ...]] | None = None


BENCHMARKS: dict[str, Benchmark] = {f"cutouts-{split}": Benchmark(Cutouts, split) for split in BENCHMARK_SPLITS}


def load_benchmark(name: str, data_dir: str | None = None, cache_dir: str | None = None) -> datasets.Dataset:
    """Load the evaluation split of a benchmark.

    Args:
        name: A key of `BENCHMARKS`.
        data_dir: Folder of the data set; Cutouts needs none.
        cache_dir: Where prepared data sets are kept; the default is that of `datasets`.

    Raises:
        UserError: There is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise unknown_name("--dataset", name, BENCHMARKS)
    benchmark = BENCHMARKS[name]
    builder = benchmark.builder(config_name=benchmark.config_name, data_dir=data_dir, cache_dir=cache_dir)
    builder.download_and_prepare()
    return builder.as_dataset(split="test")


def load_training_pairs(
    name: str, data_dir: str | None = None, images_dir: str | None = None, masks: str = "annotated"
) -> datasets.Dataset:
    """Load image-mask pairs to fine-tune on.

    Args:
        name: "cutouts", or the path of a folder with images/<class>/* and masks/<class>/*.png.
        data_dir: Folder of the data set; Cutouts and a folder that is named itself need none.
        images_dir: Where the images are if not beside the masks.
        masks: "annotated", or a folder of masks/<class>/*.png to take instead of the data set's own.

    Returns:
        Rows of `image`, `mask`, `label` and `image_id`.

    Raises:
        UserError: There is no such data set, or its folder does not fit.
    """
    masks_dir = None if masks == "annotated" else masks
    if os.path.isdir(name):
        return load_image_mask_folder(name, images_dir=images_dir, masks_dir=masks_dir)
    if name == "cutouts":
        builder = Cutouts(config_name="train")
        builder.download_and_prepare()
        return builder.as_dataset(split="train")
    raise unknown_name("--dataset", name, ["cutouts", "imagenet-s", "the path of a folder"])
