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
    """The images with even grey around their objects; arguments as `BenchmarkImages`, always with masks."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, with_masks=True, **kwargs)

    def _read(self, index: int) -> dict[str, Image.Image]:
        pictures = super()._read(index)
        return pictures | {"image": grey_background(pictures["image"], pictures["mask"])}


class SwappedBackgrounds(BenchmarkImages):
    """The images with the background of another image, of another class unless one class has more than half of them.

    Each background is used once, without its own object. Where that image cannot be read, the next one serves.
    Arguments as `BenchmarkImages`, always with masks.
    """

    def __init__(self, dataset: datasets.Dataset, *args: Any, **kwargs: Any):
        super().__init__(dataset, *args, with_masks=True, **kwargs)
        self.others = draw_others(dataset["label"][:], seed=0)

    def _read(self, index: int) -> dict[str, Image.Image]:
        pictures = super()._read(index)
        other = int(self.others[index])
        # Others lead back to the image itself in the end, which can be read.
        while (background := self._background(other)) is None:
            other = int(self.others[other])
        return pictures | {"image": swap_background(pictures["image"], pictures["mask"], background)}

    def _background(self, index: int) -> Image.Image | None:
        try:
            pictures = super()._read(index)
        except UnreadableImage:
            return None
        return fill_object(pictures["image"], pictures["mask"])


def background_outcomes(
    checkpoint: Checkpoint,
    grey: GreyBackgrounds,
    swapped: SwappedBackgrounds,
    labels: np.ndarray,
    label_space: LabelSpace,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
) -> pd.DataFrame:
    """Classify every image with its background greyed, and with its background swapped.

    Args:
        checkpoint: The model.
        grey, swapped: The benchmark's images, in the preprocessing of the accuracy run, applied after the change.
        labels: (images,) int64, the data set's own labels.
        label_space: How the data set's classes meet the model's.
        options: How images are fed, and the precision.
        accelerator: The processes and the device.
        description: What the progress bars say.

    Returns:
        `image_id`, and bool columns `top1_grey_background` and `top1_swapped_background`, over all the model's classes
        as `top1`; one row for each readable image.

    Raises:
        UserError: An image or mask cannot be read, and `options.skip_unreadable` is off.
    """
    expected = np.asarray(label_space.first_indices)[labels]  # (images,), the model's classes

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"guess": checkpoint.model(pixel_values=batch["pixel_values"]).logits.argmax(dim=1)}  # (batch,)

    frame = pd.DataFrame()
    for figure, images in zip(BACKGROUND_FIGURES, (grey, swapped), strict=True):
        columns = run_over_images(step, images, options, accelerator, f"{description}: {figure[5:].replace('_', ' ')}")
        # The same images are readable both times.
        frame["image_id"], frame[figure] = columns["image_id"], columns["guess"] == expected[columns["index"]]
    return frame
