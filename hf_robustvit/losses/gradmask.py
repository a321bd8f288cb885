"""GradMask, the first of the paper's two baselines (App. C, Eq. 9)."""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from hf_robustvit.errors import unknown_name
from hf_robustvit.losses.input_gradient import background_gradient
from hf_robustvit.losses.output import LossOutput, mean_cross_entropy


@dataclass(frozen=True)
class GradMaskLoss:
    """Cross-entropy, and a penalty on the true class's input gradient where the background is.

        L = lambda_background L_bg + lambda_classification CE(M(i), y)
        L_bg = || d logit_y / d image * background mask ||                    (Eq. 9)

    Args:
        lambda_background, lambda_classification: The weights above (Tab. 7: 50 and 3e-9).
        second_order: Whether the penalty's gradient reaches the weights. The authors' released script omits it, so
            that its penalty moves no weight; `False` reproduces that.
        penalty: "mean_square", as released: the mean of the squared gradient over the batch, channels and pixels;
            "norm", Eq. 9 to the letter: the 2-norm of each image's gradient, averaged over the batch.

    Relations:
        `RRRLoss` penalises the gradient of the summed log-probabilities instead, and sums it over the batch.
    """

    lambda_background: float = 50.0
    lambda_classification: float = 3e-9
    second_order: bool = True
    penalty: Literal["mean_square", "norm"] = "mean_square"

    def __post_init__(self):
        if self.penalty not in ("mean_square", "norm"):
            raise unknown_name("penalty", self.penalty, ["mean_square", "norm"])

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
            model,
            pixel_values,
            masks,
            lambda logits: logits.gather(1, labels[:, None].clone()).sum(),
            self.second_order,
        )
        if self.penalty == "norm":
            background = gradient.flatten(1).norm(dim=1).sum() / num_images  # Eq. 9
        else:
            background = gradient.square().sum() / (num_images * gradient[0].numel())
        classification = mean_cross_entropy(logits, labels, num_images)  # Eq. 8
        loss = self.lambda_background * background + self.lambda_classification * classification
        terms = {"background": background.detach(), "classification": classification.detach()}
        return LossOutput(loss, terms, logits.detach())
