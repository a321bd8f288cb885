"""`explain`: one forward pass, one backward pass to all attentions, one map."""

import contextlib
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.flags import RelevanceMethod
from hf_robustvit.lean.activations import Recomputation, recompute_cheap_activations
from hf_robustvit.lean.attention import Attentions, LeanAttention, is_lean, require_second_derivatives
from hf_robustvit.lean.last_layer import last_layer_for_cls
from hf_robustvit.models.families import backbone_of, head_reads, image_config, layers_of
from hf_robustvit.models.loading import attentions_of, bare_classifier
from hf_robustvit.models.patches import patch_layout
from hf_robustvit.relevance.attention_pooling import pooling_attention
from hf_robustvit.relevance.gae import cls_relevance, pooled_relevance
from hf_robustvit.relevance.libra import libra_rules
from hf_robustvit.relevance.maps import min_max_normalize, upscale
from hf_robustvit.relevance.occlusion import occlusion
from hf_robustvit.relevance.read_out import read_out
from hf_robustvit.relevance.rollout import pooled_rollout, rollout


METHODS = get_args(RelevanceMethod)
TRAINING_METHODS = METHODS[:2]


def check_training_method(method: str, name: str) -> None:
    """Check that a loss can move the maps of a method.

    Args:
        method: One of `METHODS`, or what was taken for one.
        name: What the user calls the setting.

    Raises:
        UserError: It cannot, or there is no such method.
    """
    if method not in METHODS:
        raise unknown_name(name, method, METHODS)
    if method not in TRAINING_METHODS:
        trainable = " or ".join(TRAINING_METHODS)
        raise UserError(f"{name} is {method}, which is for evaluation only: train with {trainable}.")


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
    target: int | Sequence[int] | torch.Tensor | None = None,
    method: str = "gae",
    second_order: bool = False,
    start_layer: int = 0,
) -> Explanation:
    """Relevance map of each image for one class (paper App. B, Eq. 6-7).

    The result is differentiable in the model's parameters, unless the caller has switched gradients off, in which case
    it is detached. Train and eval mode, frozen layers and autocast all work; the map's arithmetic is float32.

    Args:
        model: A classifier from `load_classifier`, bare or wrapped for several processes or by peft.
        pixel_values: (batch, 3, height, width), normalised as the model expects; height and width are multiples of
            the patch size. (3, height, width) is a batch of one.
        target: The class to explain, an integer for each image, (batch,) or (batch, 1), or one for all; the predicted
            one if `None`.
        method: "gae", Generic Attention Explainability; "libra", the same with LibraGrad's gradients. Or a rule to
            hold them against: "rollout", attention rollout, which knows no class; "occlusion", which needs many
            forward passes and is never differentiable.
        second_order: Whether the gradients inside the map stay differentiable, which needs eager attention. If not
            they are constants, as in the authors' released code, and the map moves the weights through the attentions
            alone.
        start_layer: The first layer that counts (occlusion looks at none). The paper counts all; on models with many
            layers or large patch grids the last layers alone give sharper maps.

    Raises:
        UserError: The method is not known, `pixel_values` are not images, `target` is not a class for each of them,
            `start_layer` is not a layer, the model gives no attentions, the image does not fit its patches,
            `second_order` meets lean attention, or "libra" gradient checkpointing.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    keep_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        bare_model = bare_classifier(model)
        if second_order:
            require_second_derivatives(bare_model.config)
        # Autograd refuses tensors that were made in inference mode; their copies made here are ordinary ones.
        pixel_values, target = (
            given.clone() if isinstance(given, torch.Tensor) and given.is_inference() else given
            for given in (pixel_values, target)
        )
        pixel_values = _batch_of(pixel_values, image_config(bare_model.config).num_channels)
        if target is not None:
            target = _class_of_each(target, len(pixel_values), bare_model.config.num_labels)
        backbone = backbone_of(bare_model)
        if not pixel_values.requires_grad and not all(weight.requires_grad for weight in backbone.parameters()):
            # Below a frozen layer nothing asks for a gradient, so its attentions would be no part of the graph.
            pixel_values = pixel_values.detach().requires_grad_()
        forward = _forward(model, bare_model, pixel_values)
        logits, num_layers = forward.logits, len(forward.attentions)
        if not 0 <= start_layer < num_layers:
            raise UserError(f"start_layer is {start_layer}, but the model's layers are 0 to {num_layers - 1}.")
        forward = forward._replace(attentions=forward.attentions[start_layer:])
        target = logits.argmax(dim=-1) if target is None else target.to(logits.device)
        height, width = pixel_values.shape[-2:]
        layout = patch_layout(bare_model.config)
        grid = layout.grid(height, width)
        if method == "occlusion":
            patch_relevance = occlusion(model, pixel_values, target, layout.patch_size)
        else:
            read = partial(read_out, head_reads(bare_model), forward.tokens, layout.num_prefix_tokens)
            if method == "rollout":
                with torch.set_grad_enabled(keep_graph):  # else every layer's map would be kept
                    start = pooled_rollout(*forward.pooling) if forward.pooling else read()
                    token_relevance = rollout(forward.attentions, start)  # (batch, tokens)
            else:
                rules = libra_rules if method == "libra" else contextlib.nullcontext
                token_relevance = _gae(forward, target, second_order and keep_graph, keep_graph, read, rules)
            patch_relevance = token_relevance[:, layout.num_prefix_tokens :].unflatten(1, grid)
        explanation = Explanation(
            relevance=min_max_normalize(upscale(patch_relevance, (height, width))),  # (batch, 1, height, width)
            patch_relevance=patch_relevance,  # (batch, rows, columns)
            logits=logits,
            target=target,
        )
    return explanation if keep_graph else _detached(explanation)


def _batch_of(pixel_values: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Images as (batch, channels, height, width); a single one becomes a batch of one."""
    shape = tuple(pixel_values.shape) if isinstance(pixel_values, torch.Tensor) else ()
    if len(shape) not in (3, 4) or shape[-3] != num_channels or 0 in shape:
        found = f"shape {shape}" if isinstance(pixel_values, torch.Tensor) else f"type {type(pixel_values).__name__}"
        raise UserError(
            f"pixel_values have the {found}: give a tensor of the shape (images, {num_channels}, height, width), or "
            f"({num_channels}, height, width) for a single image."
        )
    return pixel_values if len(shape) == 4 else pixel_values[None]


def _class_of_each(target: int | Sequence[int] | torch.Tensor, num_images: int, num_classes: int) -> torch.Tensor:
    """The class to explain of each image, (batch,) int64."""
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"target is {reprlib.repr(target)}: give the index of a class, or one for each image."
        ) from error
    if classes.numel() != 1 and classes.shape not in ((num_images,), (num_images, 1)):
        raise UserError(
            f"target has the shape {tuple(classes.shape)} for a batch of {num_images}: give one class for each image, "
            "or a single one for all."
        )
    if classes.dtype == torch.bool or classes.is_floating_point() or classes.is_complex():
        raise UserError(f"target holds {classes.dtype} values, but classes are given by their indices: use integers.")
    classes = classes.reshape(-1).long().expand(num_images)
    # Reading the values of a GPU's tensor would hold up every training step; there `gather` checks them itself.
    if classes.device.type == "cpu" and not 0 <= classes.min() <= classes.max() < num_classes:
        wrong = classes[(classes < 0) | (classes >= num_classes)][0]
        raise UserError(f"target has the class {wrong}, but the model's classes are 0 to {num_classes - 1}.")
    return classes


class _Forward(NamedTuple):
    """The logits, and what they were computed from: attentions, last hidden state, the attention that pools it."""

    logits: torch.Tensor
    attentions: Attentions
    tokens: torch.Tensor
    pooling: Attentions  # none, or one
    recomputation: Recomputation


def _forward(model: nn.Module, bare_model: PreTrainedModel, pixel_values: torch.Tensor) -> _Forward:
    """Run the model.

    What surrounds a model hands out copies, from which no logits were computed: DistributedDataParallel of its
    outputs, accelerate's mixed precision of what the classifier returns. So the attentions are those of the backbone.
    """
    outputs, pooling, recomputation = [], [], Recomputation()
    with contextlib.ExitStack() as contexts:
        for module in (backbone_of(bare_model), bare_model):
            contexts.enter_context(module.register_forward_hook(lambda module, inputs, output: outputs.append(output)))
        if head_reads(bare_model) == "cls":
            contexts.enter_context(last_layer_for_cls(layers_of(bare_model)[-1]))
        elif head_reads(bare_model) == "attention pooling":
            pooling = contexts.enter_context(pooling_attention(backbone_of(bare_model)))
        if is_lean(bare_model.config):
            recomputation = contexts.enter_context(recompute_cheap_activations())
        model(pixel_values, output_attentions=True)
    backbone_output, output = outputs
    attentions = attentions_of(backbone_output, bare_model.config)
    return _Forward(output.logits, attentions, backbone_output.last_hidden_state, pooling, recomputation)


def _gae(
    forward: _Forward,
    target: torch.Tensor,
    create_graph: bool,
    retain_graph: bool,
    read: Callable[[torch.Tensor], torch.Tensor | None],
    rules: Callable[[torch.Tensor], contextlib.AbstractContextManager],
) -> torch.Tensor:
    """`cls_relevance` for the target's score, whose gradient is computed here, by `rules` of the score.

    `read` gives the start of the propagation for the gradient in the last hidden state.
    """
    score = forward.logits.gather(1, target[:, None]).sum()
    explained = [*_explained([*forward.attentions, *forward.pooling]), forward.tokens]
    with rules(score), forward.recomputation.left_out():
        *gradients, in_tokens = torch.autograd.grad(
            score, explained, create_graph=create_graph, retain_graph=retain_graph
        )
    start = pooled_relevance(*forward.pooling, gradients.pop()) if forward.pooling else read(in_tokens)
    return cls_relevance(forward.attentions, gradients, start)


def _explained(attentions: Attentions) -> list[torch.Tensor]:
    """The tensors whose gradients make the map: the attentions, or under lean attention their outputs."""
    explained = [attention.output if isinstance(attention, LeanAttention) else attention for attention in attentions]
    if not all(tensor.requires_grad for tensor in explained):
        raise UserError(
            "The attentions take no part in the gradient, as under gradient checkpointing with use_reentrant=True: "
            "switch it off, or enable it with use_reentrant=False."
        )
    return explained


def _detached(explanation: Explanation) -> Explanation:
    return Explanation(**{name: value.detach() for name, value in vars(explanation).items()})
