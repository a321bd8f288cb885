"""Lean attention: SDPA that hands out what its attention map can be recomputed from, instead of the map."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hf_robustvit.errors import UserError


# A dataclass, so that nothing that wraps a model (mixed precision, DistributedDataParallel) converts or copies the
# tensors inside: gradients are asked for in these very ones.
@dataclass(frozen=True)
class LeanAttention:
    """One layer's attention map A = softmax(query key^T * scaling + bias), not computed.

    Under lean attention a model's `outputs.attentions` holds one of these for each layer.

    Attributes:
        query, key, value: (batch, heads, tokens, head size); the query of fewer tokens where nothing reads the others.
        output: (batch, query tokens, heads, head size), A value.
        scaling: Factor on the products of queries and keys.
        dropout: Probability with which the forward pass dropped entries of A.
        bias: What is added to the scores, (images or 1, heads or 1, query tokens, tokens): BEiT's relative positions,
            or a mask. None where nothing is.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    scaling: float
    dropout: float
    bias: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the map: (batch, heads, query tokens, tokens)."""
        return (*self.query.shape[:-1], self.key.shape[-2])


# One for each layer, first layer first: the maps (batch, heads, tokens, tokens) or what stands for them.
Attentions = Sequence[torch.Tensor] | Sequence[LeanAttention]


def lean_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, LeanAttention]:
    """Attention function of transformers: the output of "sdpa", and a `LeanAttention` where "eager" gives the map."""
    kwargs.pop("output_attentions", None)  # SDPA warns that it has none
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
    )
    return output, LeanAttention(query, key, value, output, scaling, dropout, attention_mask)


AttentionInterface.register("lean", lean_attention)
AttentionMaskInterface.register("lean", sdpa_mask)


def require_second_derivatives(config: PreTrainedConfig) -> None:
    """Check that gradients through a model can be differentiated again.

    Raises:
        UserError: If the model's attention is lean: SDPA's fast kernels have no second derivatives.
    """
    if config._attn_implementation == "lean":
        raise UserError("second_order is on, but lean attention is first order only: load with attention='eager'.")
