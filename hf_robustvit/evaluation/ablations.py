"""Accuracy without the object, as Hard ImageNet's authors ablate it: where little is lost, the background decided."""

from typing import Any

import pandas as pd
import torch

from hf_robustvit.data.transforms import normalization
from hf_robustvit.evaluation.oracle import ForegroundImages
from hf_robustvit.evaluation.run import BenchmarkRun


class GreyObjects(ForegroundImages):
    """The images, resized and cropped, with the object's pixels grey (0.5); arguments as `ForegroundImages`."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        mean, std = (values.flatten()[:, None, None] for values in normalization(self.image_processor))
        hidden = self._hidden(item["mask"] > 0)  # (H, W)
        return item | {"pixel_values": torch.where(hidden, (0.5 - mean) / std, item["pixel_values"])}

    def _hidden(self, mask: torch.Tensor) -> torch.Tensor:
        return mask


class GreyBoxes(GreyObjects):
    """The images with the whole box around the object's pixels grey, which hides its outline too."""

    def _hidden(self, mask: torch.Tensor) -> torch.Tensor:
        sides = []
        for line in (mask.any(dim=1), mask.any(dim=0)):  # rows, columns
            reached = line.cumsum(0) > 0
            sides.append(reached & (line.flip(0).cumsum(0).flip(0) > 0))
        return sides[0][:, None] & sides[1]


def applies(run: BenchmarkRun) -> bool:
    """Whether accuracy without the object is one of the data set's figures."""
    return run.data.ablates and run.data.has_masks and run.data.label_space is not None


def measure(run: BenchmarkRun) -> pd.DataFrame:
    """Classify every image with its object greyed, and with the object's box greyed.

    Returns:
        `image_id`, and bool columns `top1_grey_object` and `top1_grey_box`, over all the model's classes as `top1`;
        one row for each readable image.

    Raises:
        UserError: An image or mask cannot be read, and `run.options.skip_unreadable` is off.
    """
    grey, boxes = (
        run.hits(run.images(kind, with_masks=True), f"top1_grey_{name}", f"{name} greyed")
        for name, kind in (("object", GreyObjects), ("box", GreyBoxes))
    )
    return grey.merge(boxes, on="image_id", validate="one_to_one")  # the same images are readable both times
