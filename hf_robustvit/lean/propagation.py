"""One layer's step of Eq. 7 from queries, keys and values: its attention map is recomputed, used and forgotten."""

from collections.abc import Iterator

import torch

from hf_robustvit.errors import UserError
from hf_robustvit.lean.attention import ATTENTIONS_AT_A_TIME, LeanAttention


def propagate_lean(
    relevance: torch.Tensor, attention: LeanAttention, output_gradient: torch.Tensor, rows: slice
) -> torch.Tensor:
    """What `propagate` gives, without holding a (batch, heads, tokens, tokens) tensor unless maps are kept.

    Args:
        relevance: (batch, rows), the relevance of the layer's query tokens in `rows`.
        attention: What the layer's attention is computed from.
        output_gradient: (batch, tokens, heads, head size), the gradient of the explained score in
            `attention.output`. It is a constant, and so are the values: the result is differentiable in the relevance,
            the queries, the keys and the bias.
        rows: The query tokens.

    Returns:
        (batch, tokens) float32 (float64 where the queries are), not negative.
    """
    if attention.dropout:
        raise UserError(
            f"The model drops {attention.dropout:.0%} of its attention in training, and lean attention cannot know "
            "which entries: set attention_probs_dropout_prob to 0 or load the model with attention='eager'."
        )
    query, gradient = attention.query[:, :, rows], output_gradient.transpose(1, 2)[:, :, rows]
    bias = attention.bias if attention.bias is None else attention.bias[:, :, rows]
    inputs = relevance, query, attention.key, attention.value.detach(), gradient, bias
    return _RowPropagation.apply(*inputs, attention.scaling, attention.keep_maps)


class _RowPropagation(torch.autograd.Function):
    """r mean_h (A * dA)^+ with A = softmax(query key^T * scaling + bias) and dA = output_gradient value^T, a constant.

    Only the arguments are kept for the backward pass, which computes A and (A * dA)^+ = A * dA^+ again, unless these
    are kept too.
    """

    @staticmethod
    def forward(ctx, relevance, query, key, value, output_gradient, bias, scaling, keep_maps):
        found, kept = relevance.new_zeros(len(query), key.shape[2]), []
        with torch.autocast(query.device.type, enabled=False):
            for images, rows in _tiles(query, key):
                maps = _maps(query, key, value, output_gradient, bias, scaling, images, rows)
                # (images, heads, 1, tokens)
                found[images] += (relevance[images, None, None, rows] @ maps[1])[:, :, 0].mean(dim=1)
                kept += maps
        ctx.save_for_backward(relevance, query, key, bias, *(kept if keep_maps else (value, output_gradient)))
        ctx.scaling, ctx.keep_maps = scaling, keep_maps
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        relevance, query, key, bias, *others = ctx.saved_tensors
        in_relevance, in_query, in_key = torch.empty_like(relevance), torch.empty_like(query), torch.zeros_like(key)
        in_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[5] else None
        with torch.autocast(query.device.type, enabled=False):
            for number, (images, rows) in enumerate(_tiles(query, key)):
                if ctx.keep_maps:
                    attention, positive = others[2 * number : 2 * number + 2]
                else:
                    attention, positive = _maps(query, key, *others, bias, ctx.scaling, images, rows)
                # (images, heads, rows, 1), of A * (gradient in A); as one product for each image, which is much faster
                row_sums = positive.flatten(1, 2) @ gradient[images, :, None]
                row_sums = row_sums.view(*attention.shape[:3], 1)
                in_relevance[images, rows] = row_sums.mean(dim=1)[..., 0]
                # Softmax's backward pass, A * (gradient in A - row_sums), in which A * dA^+ is at hand.
                scores = (positive * gradient[images, None, None]).addcmul_(attention, row_sums, value=-1)
                weights = relevance[images, None, rows, None] / query.shape[1]  # (images, 1, rows, 1)
                if in_bias is not None:
                    part = _part(in_bias, images, rows)
                    part += (scores * weights).sum_to_size(part.shape)
                scores, weights = scores.to(query.dtype), (weights * ctx.scaling).to(query.dtype)
                in_query[images, :, rows] = (scores @ key[images]).mul_(weights)
                in_key[images] += scores.mT @ (query[images, :, rows] * weights)
        return in_relevance, in_query, in_key, None, None, in_bias, None, None


def _tiles(query: torch.Tensor, key: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Images and rows that are computed at a time, each with all its heads and keys."""
    at_a_time = ATTENTIONS_AT_A_TIME["cpu" if query.device.type == "cpu" else "gpu"]
    num_rows = max(1, at_a_time // (query.shape[1] * key.shape[2]))
    num_images = max(1, num_rows // query.shape[2])
    for image in range(0, len(query), num_images):
        for row in range(0, query.shape[2], num_rows):
            yield slice(image, image + num_images), slice(row, row + num_rows)


def _part(bias: torch.Tensor, images: slice, rows: slice) -> torch.Tensor:
    """A tile's part of a bias, which may be shared by all images."""
    return bias[images if len(bias) > 1 else slice(None), :, rows]


def _maps(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output_gradient: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
    images: slice,
    rows: slice,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A tile's A and A * dA^+, (images, heads, rows, tokens): products in the model's precision, else float32."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    scores = (query[images, :, rows] * scaling) @ key[images].mT
    scores = scores if bias is None else scores + _part(bias, images, rows)
    attention = scores.softmax(dim=-1, dtype=dtype)
    attention_gradient = (output_gradient[images, :, rows] @ value[images].mT).to(dtype)
    return attention, attention_gradient.clamp_(min=0).mul_(attention)
