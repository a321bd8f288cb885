"""Sufficient input subsets (paper App. A, Fig. 5): few pixels that alone make the model sure of a class, any class."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel


@dataclass(frozen=True)
class SufficientSubset:
    """Pixels that were found for a class.

    Attributes:
        mask: (H, W) bool, True where a pixel is kept; the others are 0 after normalisation, the mean colour.
        confidence: The class's probability on these pixels alone, in [0, 1]. Below the threshold that was asked for,
            no sufficient subset was found, and these pixels are the most convincing ones that were met.
    """

    mask: torch.Tensor
    confidence: float


def sufficient_input_subset(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    target: int,
    threshold: float = 0.9,
    share_per_step: float = 0.02,
) -> SufficientSubset:
    """Search a small set of pixels that is enough for a class: batched gradient backward selection.

    Carter et al., "Overinterpretation reveals image classification model pathologies" (2021). The search starts with
    the whole image. In every step the gradient of the class's score says, for each pixel that is left, what its share
    in the score is; the pixels with the least go, down to the last one. Of all sets on the way the smallest that
    reaches the threshold is the result. The class need not be the image's: pixels that speak against it go first, so
    the score of any class rises on the way, as under an adversarial attack. That is the paper's point: such pixels are
    not what the model decided by.

    Args:
        model: The classifier, in eval mode; its weights and their gradients are left alone.
        pixel_values: (3, H, W), one image, normalised.
        target: The class.
        threshold: The probability that is enough, in [0, 1].
        share_per_step: Of the pixels that are left, how many go in one step, at least one; a smaller share finds
            smaller and surer subsets in more steps: about log(pixels) / share, each a forward and a backward pass.

    Returns:
        The smallest sufficient set that was met; without one, the set of the highest confidence.
    """
    with torch.inference_mode(False):
        pixel_values = pixel_values.clone()  # autograd refuses tensors that were made in inference mode
        kept = torch.ones(pixel_values.shape[-2:], dtype=torch.bool, device=pixel_values.device)  # (H, W)
    best = None
    while kept.any():
        with torch.inference_mode(False), torch.enable_grad():
            shares = kept.to(pixel_values.dtype, copy=True).requires_grad_()
            logits = model(pixel_values=(pixel_values * shares)[None]).logits[0].float()  # (classes,)
            # The gradient of log p is that of p times 1 / p: the same order, and it does not vanish with p.
            score = logits.log_softmax(dim=0)[target]
            (gradient,) = torch.autograd.grad(score, shares)  # (H, W), over all channels
        confidence = score.exp().item()
        if best is None or confidence >= min(threshold, best.confidence):
            best = SufficientSubset(kept, confidence)
        ranked = gradient.masked_fill(~kept, torch.inf).flatten().argsort(stable=True)
        kept = kept.clone()
        kept.view(-1)[ranked[: max(1, int(share_per_step * int(kept.sum())))]] = False
    return best
