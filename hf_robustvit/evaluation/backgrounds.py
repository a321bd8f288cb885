"""Accuracy where the object is as it was and its background is not: greyed, or another image's."""

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_robustvit.data.background import fill_object, grey_background, swap_background
from hf_robustvit.data.controls import draw_others
from hf_robustvit.evaluation.images import BenchmarkImages, UnreadableImage
from hf_robustvit.evaluation.one_pass import Measurement, hits
from hf_robustvit.evaluation.run import BenchmarkRun


class GreyBackgrounds(BenchmarkImages):
    """The images with even grey around their objects; arguments as `BenchmarkImages`, always with masks."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, with_masks=True, **kwargs)

    def _changed(self, pictures: Mapping[str, Image.Image], index: int) -> Mapping[str, Image.Image]:
        return {**pictures, "image": grey_background(pictures["image"], pictures["mask"])}


class SwappedBackgrounds(BenchmarkImages):
    """The images with the background of another image, of another class unless one class has more than half of them.

    Each background is used once, without its own object. Where that image cannot be read, the next one serves.
    Arguments as `BenchmarkImages`, always with masks; `others`, (images,), is a permutation that says whose background
    each image gets, where that is not to be drawn.
    """

    def __init__(self, dataset: datasets.Dataset, *args: Any, others: np.ndarray | None = None, **kwargs: Any):
        super().__init__(dataset, *args, with_masks=True, **kwargs)
        self.others = draw_others(dataset["label"][:], seed=0) if others is None else others

    def _changed(self, pictures: Mapping[str, Image.Image], index: int) -> Mapping[str, Image.Image]:
        other = int(self.others[index])
        # Others lead back to the image itself in the end, which can be read.
        while (background := self._background(other)) is None:
            other = int(self.others[other])
        return {**pictures, "image": swap_background(pictures["image"], pictures["mask"], background)}

    def _background(self, index: int) -> Image.Image | None:
        try:
            pictures = self.read(index)
        except UnreadableImage:
            return None
        return fill_object(pictures["image"], pictures["mask"])


def applies(run: BenchmarkRun) -> bool:
    """Whether the data set gets the tests that need masks, and has labels."""
    return run.data.tests_masks and run.data.has_masks and run.data.label_space is not None


def measurement(run: BenchmarkRun) -> Measurement:
    """Classify every image with its background greyed, and with its background swapped.

    Bool columns `top1_grey_background` and `top1_swapped_background`, over all the model's classes as `top1`.
    """
    kinds = {"top1_grey_background": GreyBackgrounds, "top1_swapped_background": SwappedBackgrounds}
    return hits(run, {figure: run.images(kind) for figure, kind in kinds.items()})
