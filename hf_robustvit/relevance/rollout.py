"""Attention rollout (Abnar and Zuidema, ACL 2020), for the rows that the head reads: how attention mixes tokens."""

import torch

from hf_robustvit.lean.attention import Attentions, LeanAttention


def rollout(attentions: Attentions, start: torch.Tensor | None = None) -> torch.Tensor:
    """The share of every input token in what the score is read from, if attention and residuals were all there is.

    The product of (A + I) / 2 over the layers, A the mean over the heads (the paper's Eq. 1, with equal weights). It
    asks for no class: what it says of an image holds for every class.

    Args:
        attentions: As for `cls_relevance`.
        start: (batch, tokens), the share of each of the last layer's tokens in what the score is read from, adding up
            to 1 for an image; None is the CLS token alone.

    Returns:
        (batch, tokens) float32 (float64 where the attentions are); the tokens of an image add up to 1.
    """
    last = attentions[-1]
    example = last.query if isinstance(last, LeanAttention) else last
    dtype = torch.promote_types(example.dtype, torch.float32)
    if start is None:
        e_cls = torch.eye(1, last.shape[-1], dtype=dtype, device=example.device)
        relevance, rows = e_cls.expand(last.shape[0], -1), slice(0, 1)  # (batch, tokens), all of it in one row
    else:
        relevance, rows = start.to(dtype), slice(None)
    for attention in reversed(attentions):
        with torch.autocast(example.device.type, enabled=False):
            layer = _mean_map(attention, rows, dtype)  # (batch, rows, tokens)
            relevance = (relevance + torch.bmm(relevance[:, None, rows], layer)[:, 0]) / 2
        rows = slice(None)
    return relevance


def pooled_rollout(attention: torch.Tensor | LeanAttention) -> torch.Tensor:
    """The share of every token in what an attention of one query pools: (batch, tokens), adding up to 1."""
    example = attention.query if isinstance(attention, LeanAttention) else attention
    return _mean_map(attention, slice(None), torch.promote_types(example.dtype, torch.float32))[:, 0]


def _mean_map(attention: torch.Tensor | LeanAttention, rows: slice, dtype: torch.dtype) -> torch.Tensor:
    """Some rows of the mean over the heads of a layer's maps; under lean attention of one head at a time."""
    if not isinstance(attention, LeanAttention):
        return attention[:, :, rows].to(dtype).mean(dim=1)
    queries = (attention.query[:, :, rows] * attention.scaling).unbind(dim=1)
    biases = [0] * len(queries)
    if attention.bias is not None:
        biases = attention.bias[:, :, rows].expand(-1, len(queries), -1, -1).unbind(dim=1)
    heads = zip(queries, attention.key.unbind(dim=1), biases, strict=True)
    return sum((query @ key.mT + bias).softmax(dim=-1, dtype=dtype) for query, key, bias in heads) / len(queries)
