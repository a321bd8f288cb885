"""The last layer, run for the CLS token alone where nothing else is read from it."""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.vit.modeling_vit import eager_attention_forward


@contextlib.contextmanager
def last_layer_for_cls(layer: nn.Module) -> Iterator[None]:
    """A context in which the last layer of a classifier whose head reads the CLS token alone computes no more.

    Of that layer only the keys and values need the other tokens. The residual connection still adds the CLS token's
    result to all of them, but nothing reads these any more. A layer that is not bare runs as it is, and so does one
    that is run again in the backward pass, outside of this context, or that is built in another way, as CLIP's.

    Args:
        layer: The last layer; of a ViT, DeiT or ViT-MSN for this to have an effect.
    """
    is_bare = isinstance(layer, GradientCheckpointingLayer) and not layer.gradient_checkpointing
    if not is_bare or not hasattr(layer, "layernorm_after"):
        yield
        return
    layer.attention.forward = partial(_attend_from_cls, layer.attention)
    try:
        with layer.layernorm_after.register_forward_pre_hook(lambda module, inputs: (inputs[0][:, :1],)):
            yield
    finally:
        del layer.attention.forward


def _attend_from_cls(
    attention: nn.Module, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the attention of transformers' ViT, DeiT and ViT-MSN gives, for the query of the first token.

    Args:
        hidden_states: (batch, tokens, hidden size).

    Returns:
        (batch, 1, hidden size), and the attention map (batch, heads, 1, tokens) or what stands for it.
    """
    query, key, value = (
        project(tokens).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # (batch, heads, tokens, head size)
        for project, tokens in (
            (attention.q_proj, hidden_states[:, :1]),
            (attention.k_proj, hidden_states),
            (attention.v_proj, hidden_states),
        )
    )
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    output, weights = attend(
        attention,
        query,
        key,
        value,
        attention_mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
        **kwargs,
    )
    return attention.o_proj(output.flatten(2)), weights
