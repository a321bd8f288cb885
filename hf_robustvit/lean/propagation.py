"""One layer's step of Eq. 7 from queries, keys and values: its attention map is recomputed, used and forgotten."""

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
    key, value = attention.key, attention.value.detach()
    query, gradient = attention.query[:, :, rows], output_gradient.transpose(1, 2)[:, :, rows]
    at_a_time = ATTENTIONS_AT_A_TIME["cpu" if query.device.type == "cpu" else "gpu"]
    num_queries = max(1, at_a_time // (query.shape[1] * key.shape[2]))  # each with all its heads and keys
    num_images = max(1, num_queries // query.shape[2])
    images = [tensor.split(num_images) for tensor in (relevance, query, key, value, gradient)]
    bias = attention.bias if attention.bias is None else attention.bias[:, :, rows]
    is_shared = bias is None or len(bias) == 1
    biases = [bias] * len(images[0]) if is_shared else bias.split(num_images)
    how = attention.scaling, attention.keep_maps, num_queries
    return torch.cat([_propagate(*part, *how) for part in zip(*images, biases, strict=True)])


def _propagate(relevance, query, key, value, output_gradient, bias, scaling, keep_maps, num_queries):
    """`_RowPropagation` summed over some queries at a time."""
    parts = [tensor.split(num_queries, dim=2) for tensor in (relevance[:, None, :], query, output_gradient)]
    biases = [None] * len(parts[0]) if bias is None else bias.split(num_queries, dim=2)
    return sum(
        _RowPropagation.apply(rows[:, 0], queries, key, value, gradient, some, scaling, keep_maps)
        for rows, queries, gradient, some in zip(*parts, biases, strict=True)
    )


class _RowPropagation(torch.autograd.Function):
    """r mean_h (A * dA)^+ with A = softmax(query key^T * scaling + bias) and dA = output_gradient value^T, a constant.

    Only the arguments are kept for the backward pass, which computes A and (A * dA)^+ = A * dA^+ again, unless these
    are kept too.
    """

    @staticmethod
    def forward(ctx, relevance, query, key, value, output_gradient, bias, scaling, keep_maps):
        maps = _attention_and_positive(query, key, value, output_gradient, bias, scaling)
        ctx.save_for_backward(relevance, query, key, bias, *(maps if keep_maps else (value, output_gradient)))
        ctx.scaling, ctx.keep_maps = scaling, keep_maps
        with torch.autocast(query.device.type, enabled=False):
            return (relevance[:, None, None] @ maps[1])[:, :, 0].mean(dim=1)  # (batch, tokens)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        relevance, query, key, bias, *maps = ctx.saved_tensors
        if not ctx.keep_maps:
            maps = _attention_and_positive(query, key, *maps, bias, ctx.scaling)
        attention, positive = maps
        with torch.autocast(query.device.type, enabled=False):
            # (batch, heads, rows, 1), of A * (gradient in A); as one product for each image, which is much faster
            row_sums = (positive.flatten(1, 2) @ gradient[:, :, None]).view(*query.shape[:3], 1)
            # Softmax's backward pass, A * (gradient in A - row_sums), in which A * dA^+ is at hand.
            scores = (positive * gradient[:, None, None]).addcmul_(attention, row_sums, value=-1)
            weights = relevance[:, None, :, None] / query.shape[1]  # (batch, 1, rows, 1)
            wanted = bias is not None and ctx.needs_input_grad[5]
            bias_gradient = (scores * weights).sum_to_size(bias.shape) if wanted else None
            scores, weights = scores.to(query.dtype), (weights * ctx.scaling).to(query.dtype)
            query_gradient, key_gradient = (scores @ key).mul_(weights), scores.mT @ (query * weights)
        return row_sums.mean(dim=1)[..., 0], query_gradient, key_gradient, None, None, bias_gradient, None, None


def _attention_and_positive(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output_gradient: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and A * dA^+, both (batch, heads, rows, tokens): products in the model's precision, the rest in float32."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = (query * scaling) @ key.transpose(2, 3)
        scores = scores if bias is None else scores + bias
        attention = scores.softmax(dim=-1, dtype=dtype)
        attention_gradient = (output_gradient @ value.transpose(2, 3)).to(dtype)
        return attention, attention_gradient.clamp_(min=0).mul_(attention)
