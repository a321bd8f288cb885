"""What GradMask and RRR share: the gradient of a score in the image's pixels, kept on the background."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from hf_robustvit.lean.attention import require_second_derivatives
from hf_robustvit.losses.output import background_of
from hf_robustvit.models.loading import bare_classifier


def background_gradient(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    masks: torch.Tensor,
    score: Callable[[torch.Tensor], torch.Tensor],
    second_order: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The input gradient of `score(logits)` times the background mask, and the logits.

    Args:
        score: Maps (batch, classes) logits to a scalar.
        second_order: Whether the gradient stays differentiable in the weights.

    Returns:
        (batch, 3, height, width) gradient, float32 or wider, and (batch, classes) logits.

    Raises:
        UserError: If `second_order` meets lean attention.
    """
    if second_order:
        require_second_derivatives(bare_classifier(model).config)
    keep_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        pixel_values = pixel_values.detach().clone().requires_grad_()
        logits = model(pixel_values).logits
        (gradient,) = torch.autograd.grad(
            score(logits), pixel_values, create_graph=second_order and keep_graph, retain_graph=keep_graph
        )
        gradient = gradient * background_of(masks)
    return (gradient, logits) if keep_graph else (gradient.detach(), logits.detach())
