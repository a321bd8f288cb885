"""Plain fine-tuning: the control that sees the same images and no masks."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_robustvit.losses.output import LossOutput, mean_cross_entropy


@dataclass(frozen=True)
class FinetuneLoss:
    """Cross-entropy with the ground-truth label (paper Eq. 8)."""

    def __call__(
        self,
        model: PreTrainedModel,
        pixel_values: torch.Tensor,
        masks: torch.Tensor | None,
        labels: torch.Tensor,
        num_images: int | torch.Tensor | None = None,
    ) -> LossOutput:
        """Compute the loss; see `RobustViTLoss.__call__` for the arguments. `masks` is not read."""
        logits = model(pixel_values).logits
        classification = mean_cross_entropy(logits, labels, len(labels) if num_images is None else num_images)
        return LossOutput(classification, {"classification": classification.detach()}, logits.detach())
