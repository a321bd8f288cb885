"""Occlusion (Zeiler and Fergus, ECCV 2014, Sec. 4.2): what the model loses without a part of the image."""

import torch
from torch import nn


# The side of the square that is covered, in patches: a ViT hardly misses a single one.
WINDOW = 2


@torch.no_grad()
def class_probability(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The probability that a model gives to a class of each image, (batch,) float32."""
    logits = model(pixel_values=pixel_values).logits.float()  # (batch, classes)
    return logits.softmax(dim=1).gather(1, target[:, None])[:, 0]


@torch.no_grad()
def occlusion(
    model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor, patch_size: tuple[int, int]
) -> torch.Tensor:
    """How far the class's probability falls when a square of 2 x 2 patches is covered with the mean colour.

    The squares lie side by side, those at the right and the bottom smaller where patches are left over; each costs a
    forward pass: 49 at 224 pixels and patches of 16. A rise counts as 0.

    Args:
        model: The classifier.
        pixel_values: (batch, 3, height, width), normalised: the mean colour of the preprocessing is 0.
        target: (batch,) int64, the class.
        patch_size: Height and width of a patch in pixels.

    Returns:
        (batch, rows, columns) float32 in [0, 1], the same for all patches of a square.
    """
    height, width = (WINDOW * side for side in patch_size)
    whole = class_probability(model, pixel_values, target)
    drops = pixel_values.new_zeros(len(pixel_values), *pixel_values.shape[-2:], dtype=torch.float32)
    for top in range(0, pixel_values.shape[-2], height):
        for left in range(0, pixel_values.shape[-1], width):
            square = (..., slice(top, top + height), slice(left, left + width))
            covered = pixel_values.clone()
            covered[square] = 0
            drops[square] = (whole - class_probability(model, covered, target)).clamp(min=0)[:, None, None]
    return drops[:, :: patch_size[0], :: patch_size[1]]
