"""Accuracy where the object is as it was and its background is not: greyed, or another image's."""

from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from PIL import Image

from hf_robustvit.data.background import fill_object, grey_background, swap_background
from hf_robustvit.data.controls import draw_others
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages, UnreadableImage
from hf_robustvit.evaluation.label_spaces import LabelSpace
from hf_robustvit.evaluation.loop import LoopOptions, run_over_images


BACKGROUND_FIGURES = ("top1_grey_background", "top1_swapped_background")


class GreyBackgrounds(BenchmarkImages):
    """The images with even grey around their objects; arguments as `BenchmarkImages`, masks are needed."""

    def __init__(self, dataset: datasets.Dataset, image_processor: Any, crop_border: int = 0, turned: bool = False):
        super().__init__(dataset, image_processor, crop_border, with_masks=True, turned=turned)

    def _read(self, index: int) -> dict[str, Image.Image]:
        pictures = super()._read(index)
        return pictures | {"image": grey_background(**pictures)}


class SwappedBackgrounds(BenchmarkImages):
    """The images with the background of another image, of another class unless one class has more than half of them.

    Each background is used once, without its own object. Where that image cannot be read, the next one serves.
    """

    def __init__(self, dataset: datasets.Dataset, image_processor: Any, crop_border: int = 0, turned: bool = False):
        super().__init__(dataset, image_processor, crop_border, with_masks=True, turned=turned)
        self.others = draw_others(dataset["label"][:], seed=0)

    def _read(self, index: int) -> dict[str, Image.Image]:
        pictures = super()._read(index)
        other = int(self.others[index])
        # Others lead back to the image itself in the end, which can be read.
        while (background := self._background(other)) is None:
            other = int(self.others[other])
        return pictures | {"image": swap_background(**pictures, background=background)}

    def _background(self, index: int) -> Image.Image | None:
        try:
            return fill_object(**super()._read(index))
        except UnreadableImage:
            return None


def background_outcomes(
    checkpoint: Checkpoint,
    rows: datasets.Dataset,
    image_processor: Any,
    crop_border: int,
    label_space: LabelSpace,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
    turned: bool = False,
) -> pd.DataFrame:
    """Classify every image with its background greyed, and with its background swapped.

    Args:
        checkpoint: The model.
        rows: `image`, `mask`, `label` and `image_id`.
        image_processor: The preprocessing of the accuracy run, applied after the change.
        crop_border: As for `BenchmarkImages`.
        label_space: How the data set's classes meet the model's.
        options: How images are fed, and the precision.
        accelerator: The processes and the device.
        description: What the progress bars say.
        turned: As for `BenchmarkImages`.

    Returns:
        `image_id`, and bool columns `top1_grey_background` and `top1_swapped_background`, over all the model's classes
        as `top1`; one row for each readable image.

    Raises:
        UserError: An image or mask cannot be read, and `options.skip_unreadable` is off.
    """
    labels = np.asarray(label_space.first_indices)[rows["label"][:]]  # (images,), the model's classes

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"guess": checkpoint.model(pixel_values=batch["pixel_values"]).logits.argmax(dim=1)}  # (batch,)

    frame = pd.DataFrame()
    for figure, images_class in zip(BACKGROUND_FIGURES, (GreyBackgrounds, SwappedBackgrounds), strict=True):
        images = images_class(rows, image_processor, crop_border, turned)
        columns = run_over_images(step, images, options, accelerator, f"{description}: {figure[5:].replace('_', ' ')}")
        # The same images are readable both times.
        frame["image_id"], frame[figure] = columns["image_id"], columns["guess"] == labels[columns["index"]]
    return frame
