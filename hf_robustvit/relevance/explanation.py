"""`explain`: one forward pass, one backward pass to all attentions, one map."""

from dataclasses import dataclass

import torch
from accelerate.utils import extract_model_from_parallel
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.models import attentions_of, patch_layout
from hf_robustvit.relevance.gae import cls_relevance
from hf_robustvit.relevance.maps import min_max_normalize, upscale


@dataclass
class Explanation:
    """Why a model gave its score to a class.

    Attributes:
        relevance: (batch, 1, height, width) in [0, 1], the map over the image's pixels.
        patch_relevance: (batch, rows, columns), not negative, before upscaling and min-max.
        logits: (batch, classes).
        target: (batch,) int64, the class that is explained.
    """

    relevance: torch.Tensor
    patch_relevance: torch.Tensor
    logits: torch.Tensor
    target: torch.Tensor


def explain(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    target: torch.Tensor | None = None,
    method: str = "gae",
    second_order: bool = False,
    start_layer: int = 0,
) -> Explanation:
    """Relevance map of each image for one class (paper App. B, Eq. 6-7).

    The result is differentiable in the model's parameters, unless the caller has switched gradients off, in which case
    it is detached. Train and eval mode, frozen layers and autocast all work; the map's arithmetic is float32.

    Args:
        model: A classifier from `load_classifier`, bare or wrapped for several processes.
        pixel_values: (batch, 3, height, width), normalised as the model expects; height and width are multiples of
            the patch size.
        target: (batch,) int64, the class to explain; the predicted one if `None`.
        method: "gae", Generic Attention Explainability.
        second_order: Whether the gradients inside the map stay differentiable. If not they are constants, as in the
            authors' released code, and the map moves the weights through the attentions alone.
        start_layer: The first layer that counts. The paper counts all; on models with many layers or large patch
            grids the last layers alone give sharper maps.

    Raises:
        UserError: The method is not known, `start_layer` is not a layer, the model gives no attentions or the image
            does not fit its patches.
    """
    if method != "gae":
        raise unknown_name("method", method, ["gae"])
    keep_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        bare_model = extract_model_from_parallel(model)
        # Autograd refuses tensors that were made in inference mode; their copies made here are ordinary ones.
        pixel_values, target = (
            tensor.clone() if tensor is not None and tensor.is_inference() else tensor
            for tensor in (pixel_values, target)
        )
        if not pixel_values.requires_grad and not all(weight.requires_grad for weight in bare_model.parameters()):
            # Below a frozen layer nothing asks for a gradient, so its attentions would be no part of the graph.
            pixel_values = pixel_values.detach().requires_grad_()
        outputs = model(pixel_values, output_attentions=True)
        attentions = attentions_of(outputs, bare_model.config)
        if not 0 <= start_layer < len(attentions):
            raise UserError(f"start_layer is {start_layer}, but the model's layers are 0 to {len(attentions) - 1}.")
        logits = outputs.logits
        target = logits.argmax(dim=-1) if target is None else target
        score = logits.gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(
            score, attentions[start_layer:], create_graph=second_order and keep_graph, retain_graph=keep_graph
        )
        token_relevance = cls_relevance(attentions[start_layer:], gradients)  # (batch, tokens)
        height, width = pixel_values.shape[-2:]
        layout = patch_layout(bare_model.config)
        patch_relevance = token_relevance[:, layout.num_prefix_tokens :].unflatten(1, layout.grid(height, width))
        explanation = Explanation(
            relevance=min_max_normalize(upscale(patch_relevance, (height, width))),  # (batch, 1, height, width)
            patch_relevance=patch_relevance,  # (batch, rows, columns)
            logits=logits,
            target=target,
        )
    return explanation if keep_graph else _detached(explanation)


def _detached(explanation: Explanation) -> Explanation:
    return Explanation(**{name: value.detach() for name, value in vars(explanation).items()})
