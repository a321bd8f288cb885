"""From relevance per patch to a map over the image's pixels."""

import torch
import torch.nn.functional as F


# A map whose values lie closer together than this is constant: dividing by its span would only magnify rounding.
CONSTANT_SPAN = 1e-12


def upscale(patch_relevance: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Enlarge (batch, rows, columns) bilinearly to (batch, 1, height, width)."""
    return F.interpolate(patch_relevance[:, None], size=size, mode="bilinear", align_corners=False)


def min_max_normalize(maps: torch.Tensor) -> torch.Tensor:
    """Stretch each image's map to [0, 1]; a constant map becomes 0 everywhere, with gradient 0.

    Args:
        maps: (batch, ...) of any finite values.
    """
    dims = tuple(range(1, maps.dim()))
    low = maps.amin(dim=dims, keepdim=True)
    span = maps.amax(dim=dims, keepdim=True) - low
    constant = span <= CONSTANT_SPAN
    normalized = (maps - low) / torch.where(constant, torch.ones_like(span), span)
    return normalized.masked_fill(constant, 0.0)
