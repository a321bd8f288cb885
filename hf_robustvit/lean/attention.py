"""Lean attention: SDPA that hands out what its attention map can be recomputed from, instead of the map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hf_robustvit.errors import UserError


LEAN, KEPT = "lean", "lean_kept_maps"  # names of the attention functions
# How many attentions are computed at a time: on a CPU few enough to stay in its cache, on a GPU enough that starting
# its kernels takes hardly any time in comparison.
ATTENTIONS_AT_A_TIME = {"cpu": 2**19, "gpu": 2**25}


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
        keep_maps: Whether the map that explaining computes is kept for its backward pass.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    scaling: float
    dropout: float
    bias: torch.Tensor | None = None
    keep_maps: bool = False

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
    keep_maps = module.config._attn_implementation == KEPT
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and attention_mask is None and not dropout:
        output = _PlainAttention.apply(query, key, value, scaling).transpose(1, 2)
    else:
        kwargs.pop("output_attentions", None)  # SDPA warns that it has none
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return output, LeanAttention(query, key, value, output, scaling, dropout, attention_mask, keep_maps)


class _PlainAttention(torch.autograd.Function):
    """SDPA in bfloat16 on a CPU, some heads at a time: torch's own kernel takes twice as long as these products."""

    @staticmethod
    def forward(ctx, query, key, value, scaling):
        ctx.scaling, output = scaling, torch.empty_like(query)
        for queries, keys, values, outputs in _tiles(query, key, value, output):
            outputs.copy_(_map(queries, keys, scaling).to(values.dtype) @ values)
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        inner = [torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]]
        for query, key, value, output, outer, *found in _tiles(*ctx.saved_tensors, gradient, *inner):
            attention = _map(query, key, ctx.scaling)
            row_sums = (outer * output).sum(dim=-1, keepdim=True)  # of the map times its gradient
            scores = (outer @ value.mT).float().sub_(row_sums).mul_(attention).to(query.dtype)
            found[0].copy_((scores @ key).mul_(ctx.scaling))
            found[1].copy_((scores.mT @ query).mul_(ctx.scaling))
            found[2].copy_(attention.to(query.dtype).mT @ outer)
        return *inner, None


def _map(query: torch.Tensor, key: torch.Tensor, scaling: float) -> torch.Tensor:
    """An attention map in float32, in which a processor is faster than in bfloat16."""
    return ((query * scaling) @ key.mT).softmax(dim=-1, dtype=torch.float32)


def _tiles(query: torch.Tensor, key: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Views (heads, tokens, head size) of some heads of an image, whose maps stay in the processor's cache."""
    num_heads = max(1, ATTENTIONS_AT_A_TIME["cpu"] // (query.shape[2] * key.shape[2]))
    for image in zip(query, key, *others, strict=True):
        yield from zip(*(tensor.split(num_heads) for tensor in image), strict=True)


for name in (LEAN, KEPT):
    AttentionInterface.register(name, lean_attention)
    AttentionMaskInterface.register(name, sdpa_mask)


def is_lean(config: PreTrainedConfig) -> bool:
    """Whether a model's attention gives a `LeanAttention` for each layer."""
    return config._attn_implementation in (LEAN, KEPT)


def require_second_derivatives(config: PreTrainedConfig) -> None:
    """Check that gradients through a model can be differentiated again.

    Raises:
        UserError: If the model's attention is lean: SDPA's fast kernels have no second derivatives.
    """
    if is_lean(config):
        raise UserError("second_order is on, but lean attention is first order only: load with attention='eager'.")
