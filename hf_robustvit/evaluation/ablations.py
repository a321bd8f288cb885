"""Accuracy without the object, as Hard ImageNet's authors ablate it: where little is lost, the background decided."""

from collections.abc import Mapping

import torch
from PIL import Image

from hf_robustvit.data.transforms import normalization
from hf_robustvit.evaluation.one_pass import Measurement, hits
from hf_robustvit.evaluation.oracle import ForegroundImages
from hf_robustvit.evaluation.run import BenchmarkRun


class GreyObjects(ForegroundImages):
    """The images, resized and cropped, with the object's pixels grey (0.5); arguments as `ForegroundImages`."""

    def inputs(self, pictures: Mapping[str, Image.Image], index: int) -> dict[str, torch.Tensor]:
        inputs = super().inputs(pictures, index)
        mean, std = (values.flatten()[:, None, None] for values in normalization(self.image_processor))
        hidden = self._hidden(inputs["mask"] > 0)  # (H, W)
        return inputs | {"pixel_values": torch.where(hidden, (0.5 - mean) / std, inputs["pixel_values"])}

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


def measurement(run: BenchmarkRun) -> Measurement:
    """Classify every image with its object greyed, and with the object's box greyed.

    Bool columns `top1_grey_object` and `top1_grey_box`, over all the model's classes as `top1`.
    """
    kinds = {"top1_grey_object": GreyObjects, "top1_grey_box": GreyBoxes}
    return hits(run, {figure: run.images(kind, with_masks=True) for figure, kind in kinds.items()})
