"""Right for the Right Reasons, the second of the paper's two baselines (App. C, Eq. 10)."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_robustvit.losses.input_gradient import background_gradient
from hf_robustvit.losses.output import LossOutput, mean_cross_entropy


@dataclass(frozen=True)
class RRRLoss:
    """Cross-entropy, and a penalty on the input gradient of the summed log-probabilities where the background is.

        L = lambda_background L_bg + lambda_classification CE(M(i), y)
        L_bg = sum of (d sum_k log p_k / d image * background mask)^2         (Eq. 10)

    The squares are summed over the whole batch, as released, so the penalty grows with the batch and the image size;
    hence the small weights of Tab. 6.

    Args:
        lambda_background, lambda_classification: The weights above (Tab. 6: 1e-10 and 2e-6 for ViT-B).
        second_order: Whether the penalty's gradient reaches the weights. The authors' released script omits it, so
            that its penalty moves no weight; `False` reproduces that.

    Relations:
        `GradMaskLoss` penalises the gradient of the true class's logit instead, and averages it.
    """

    lambda_background: float = 1e-10
    lambda_classification: float = 2e-6
    second_order: bool = True

    def __call__(
        self,
        model: PreTrainedModel,
        pixel_values: torch.Tensor,
        masks: torch.Tensor,
        labels: torch.Tensor,
        num_images: int | torch.Tensor | None = None,
    ) -> LossOutput:
        """Compute the loss; see `RobustViTLoss.__call__` for the arguments."""
        num_images = len(labels) if num_images is None else num_images
        gradient, logits = background_gradient(
            model, pixel_values, masks, lambda logits: logits.log_softmax(dim=-1).sum(), self.second_order
        )
        background = gradient.square().sum()  # Eq. 10
        classification = mean_cross_entropy(logits, labels, num_images)  # Eq. 8
        loss = self.lambda_background * background + self.lambda_classification * classification
        terms = {"background": background.detach(), "classification": classification.detach()}
        return LossOutput(loss, terms, logits.detach())
