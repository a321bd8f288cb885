"""What every loss returns, and the two reductions they share."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class LossOutput:
    """The result of one loss on one batch.

    Attributes:
        loss: Scalar to call `backward()` on.
        terms: The scalars it is made of, before their lambdas, detached.
        logits: (batch, classes), detached.
        relevance: (batch, 1, height, width) in [0, 1], detached; `None` where the method makes no map.
    """

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    logits: torch.Tensor
    relevance: torch.Tensor | None = None


def foreground_of(masks: torch.Tensor) -> torch.Tensor:
    """The foreground mask, 0 where a pixel is to be ignored (-1)."""
    return masks.clamp(min=0)


def background_of(masks: torch.Tensor) -> torch.Tensor:
    """The background mask: 1 where the foreground mask is 0, and 0 where it is 1 or the pixel is to be ignored (-1).

    Values strictly between 0 and 1, which bilinear resizing leaves along the object's edge, stay as they are: so the
    authors' released code has it, and an edge pixel then counts as background by the share in which it is foreground.
    """
    return torch.where((masks == 0) | (masks == 1), 1 - masks, foreground_of(masks))


def mean_cross_entropy(logits: torch.Tensor, classes: torch.Tensor, num_images: int | torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over this batch and divided by the number of images in the whole batch."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, classes, reduction="sum") / num_images
