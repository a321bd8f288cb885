"""The head of zero-shot SigLIP: an attention of one query, whose map torch's module keeps to itself."""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.siglip.modeling_siglip import eager_attention_forward

from hf_robustvit.lean.attention import LeanAttention


@contextlib.contextmanager
def pooling_attention(backbone: PreTrainedModel) -> Iterator[list[torch.Tensor | LeanAttention]]:
    """A context in which the backbone's pooling head hands out its attention.

    Args:
        backbone: A SigLIP image tower with its head.

    Yields:
        A list, to which each forward pass adds the head's map (batch, heads, 1, patches), or under lean attention
        what it is computed from.
    """
    found = []
    pooling = backbone.head.attention
    pooling.forward = partial(_attend, pooling, backbone, found)
    try:
        yield found
    finally:
        del pooling.forward


def _attend(
    pooling: nn.MultiheadAttention,
    backbone: PreTrainedModel,
    found: list[torch.Tensor | LeanAttention],
    *inputs: torch.Tensor,
) -> tuple[torch.Tensor, None]:
    """What `pooling` gives for query, key and value, (batch, tokens, hidden size) each, by transformers' functions."""
    weights, biases = pooling.in_proj_weight.chunk(3), pooling.in_proj_bias.chunk(3)
    query, key, value = (
        F.linear(*each).unflatten(-1, (pooling.num_heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head size)
        for each in zip(inputs, weights, biases, strict=True)
    )
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(backbone.config._attn_implementation, eager_attention_forward)
    output, attention = attend(backbone, query, key, value, None, scaling=pooling.head_dim**-0.5)
    found.append(attention)
    return pooling.out_proj(output.flatten(2)), None
