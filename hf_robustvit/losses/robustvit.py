"""The paper's loss: relevance off the background, on the foreground, and a confident prediction (Eq. 1-5)."""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from hf_robustvit.errors import unknown_name
from hf_robustvit.losses.output import LossOutput, background_of, foreground_of, mean_cross_entropy
from hf_robustvit.relevance import TRAINING_METHODS, check_training_method, explain


@dataclass(frozen=True)
class RobustViTLoss:
    r"""Relevance loss and classification loss of the paper (section 3).

        L            = lambda_relevance L_relevance + lambda_classification L_classification     (Eq. 5)
        L_relevance  = lambda_background L_bg + lambda_foreground L_fg                           (Eq. 3)
        L_bg         = MSE(R * background mask, 0)                                               (Eq. 1)
        L_fg         = MSE(R * S, S)                                                             (Eq. 2)
        L_classification = CE(M(i) / temperature, argmax M(i))                                   (Eq. 4)

    Both squared errors are means over all pixels of the batch. Eq. 2 is written with the target 1; the released code
    compares with S, so that pixels outside the object add nothing, and so does this class.

    Args:
        lambda_relevance, lambda_classification, lambda_background, lambda_foreground: The weights above; the defaults
            are those of all the paper's experiments (Tab. 5). A weight of 0 is the paper's ablation without that term.
        temperature: Divides the logits in the classification loss; the released code takes 0.65 for DeiT-B, 0.55 for
            DeiT-S and 1 elsewhere.
        classification_target: "predicted" is Eq. 4; "label" is the ablation with the ground-truth label (Tab. 4).
        relevance_target: The class whose relevance map is moved: the ground-truth "label", as released, or the
            "predicted" one, which needs no labels (section 5).
        second_order: Whether the attention gradients inside the map are differentiated too. The released code treats
            them as constants. Costs about one more backward pass, and needs eager attention.
        start_layer: The first layer that counts in the relevance map; the paper counts all.
        method: The rule that makes the map: "gae", the paper's, or "libra"; see `explain`.

    Relations:
        `GradMaskLoss` and `RRRLoss` put the mask on the gradient of the input instead of on an attention map, have
        no foreground term and keep the ground-truth label. `FinetuneLoss` is the control without a mask.

    Example:
        >>> loss = RobustViTLoss()
        >>> out = loss(model, pixel_values, masks, labels)
        >>> out.loss.backward()
    """

    lambda_relevance: float = 0.8
    lambda_classification: float = 0.2
    lambda_background: float = 2.0
    lambda_foreground: float = 0.3
    temperature: float = 1.0
    classification_target: Literal["predicted", "label"] = "predicted"
    relevance_target: Literal["predicted", "label"] = "label"
    second_order: bool = False
    start_layer: int = 0
    method: Literal[TRAINING_METHODS] = "gae"

    def __post_init__(self):
        for name in ("classification_target", "relevance_target"):
            if getattr(self, name) not in ("predicted", "label"):
                raise unknown_name(name, getattr(self, name), ["predicted", "label"])
        check_training_method(self.method, "method")

    def __call__(
        self,
        model: PreTrainedModel,
        pixel_values: torch.Tensor,
        masks: torch.Tensor,
        labels: torch.Tensor,
        num_images: int | torch.Tensor | None = None,
    ) -> LossOutput:
        """Compute the loss with one forward pass and one backward pass to the attentions.

        Args:
            model: A classifier from `load_classifier`.
            pixel_values: (batch, 3, height, width), normalised.
            masks: (batch, 1, height, width) foreground masks in [0, 1]; -1 marks pixels that count in neither loss.
            labels: (batch,) int64 ground-truth classes.
            num_images: The number of images that the means are over: that of the whole batch when this is one part of
                it (gradient accumulation, several processes), so that the parts' losses add up to the whole's.
        """
        num_images = len(labels) if num_images is None else num_images
        explanation = explain(
            model,
            pixel_values,
            target=labels if self.relevance_target == "label" else None,
            method=self.method,
            second_order=self.second_order,
            start_layer=self.start_layer,
        )
        relevance = explanation.relevance  # (batch, 1, height, width)
        num_pixels = num_images * masks[0].numel()
        background = (relevance * background_of(masks)).square().sum() / num_pixels  # Eq. 1
        object_mask = foreground_of(masks)
        foreground = (relevance * object_mask - object_mask).square().sum() / num_pixels  # Eq. 2
        relevance_loss = self.lambda_background * background + self.lambda_foreground * foreground  # Eq. 3

        logits = explanation.logits
        target = labels if self.classification_target == "label" else logits.argmax(dim=-1)
        classification = mean_cross_entropy(logits / self.temperature, target, num_images)  # Eq. 4
        loss = self.lambda_relevance * relevance_loss + self.lambda_classification * classification  # Eq. 5
        terms = {
            "background": background,
            "foreground": foreground,
            "relevance": relevance_loss,
            "classification": classification,
        }
        return LossOutput(
            loss, {name: term.detach() for name, term in terms.items()}, logits.detach(), relevance.detach()
        )
