"""Generic Attention Explainability (paper App. B), for the tokens that the class score is read from only."""

from collections.abc import Sequence

import torch

from hf_robustvit.lean.attention import Attentions, LeanAttention
from hf_robustvit.lean.propagation import propagate_lean


def cls_relevance(
    attentions: Attentions, gradients: Sequence[torch.Tensor], start: torch.Tensor | None = None
) -> torch.Tensor:
    """Relevance of every token for the CLS token: the first row of R after Eq. 6-7; or a mixture of several rows.

    Eq. 7 multiplies R from the left, layer after layer, so its first row is e_CLS (I + A_L) ... (I + A_1). Taking the
    factors from the left keeps one row, (batch, tokens), where the published order needs a (tokens, tokens) product
    for each layer; and of the last layer it takes the CLS token's row alone. A mixture of rows is the same product
    with their weights in place of e_CLS.

    Args:
        attentions: One (batch, heads, tokens, tokens) tensor for each layer, first layer first: A of Eq. 6. The last
            layer's may be of the CLS token's row alone. Or, under lean attention, what it is computed from.
        gradients: The gradient of the explained score in each of them; under lean attention in each `output`.
        start: (batch, tokens), the weight of each row of R, as `read_out` gives it; None is the CLS token's row.

    Returns:
        (batch, tokens) float32 (float64 where the attentions are), not negative; column 0 is the CLS token itself.
    """
    gradient = gradients[-1]
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    if start is None:
        e_cls = torch.eye(1, attentions[-1].shape[-1], dtype=dtype, device=gradient.device)
        relevance, rows = e_cls.expand(len(gradient), -1), slice(0, 1)  # (batch, tokens), all of it in one row
    else:
        relevance, rows = start.to(dtype), slice(None)
    for attention, gradient in reversed(list(zip(attentions, gradients, strict=True))):
        relevance = relevance + _step(relevance[:, rows], attention, gradient, rows)
        rows = slice(None)
    return relevance


def pooled_relevance(attention: torch.Tensor | LeanAttention, gradient: torch.Tensor) -> torch.Tensor:
    """Relevance of the tokens that an attention of one query pools, (batch, tokens): where a propagation may start.

    The query is no token of the image, so nothing is added to what it attends to: Eq. 10 of Chefer, Gur and Wolf,
    "Generic Attention-model Explainability" (ICCV 2021), for attention between different tokens.

    Args:
        attention: (batch, heads, 1, tokens), or what it is computed from.
        gradient: As for `cls_relevance`.
    """
    query = torch.ones(len(gradient), 1, dtype=torch.promote_types(gradient.dtype, torch.float32)).to(gradient.device)
    return _step(query, attention, gradient, slice(None))


def _step(
    relevance: torch.Tensor, attention: torch.Tensor | LeanAttention, gradient: torch.Tensor, rows: slice
) -> torch.Tensor:
    step = propagate_lean if isinstance(attention, LeanAttention) else propagate
    return step(relevance, attention, gradient, rows)


def propagate(relevance: torch.Tensor, attention: torch.Tensor, gradient: torch.Tensor, rows: slice) -> torch.Tensor:
    """The row vector r A of Eq. 7, with A = mean over heads of (attention * gradient)^+ of Eq. 6.

    Args:
        relevance: (batch, rows), the relevance of the layer's query tokens in `rows`; the others have none.
        attention: (batch, heads, tokens, tokens).
        gradient: The gradient of the explained score in it.
        rows: The query tokens.

    Returns:
        (batch, tokens) of the relevance's type, not negative.
    """
    # Half-precision products lose the small entries that the map is made of.
    with torch.autocast(attention.device.type, enabled=False):
        attention, gradient = (tensor[:, :, rows].to(relevance.dtype) for tensor in (attention, gradient))
        # (batch, rows, tokens); an attention is never negative, and of the constant no derivative is asked for
        layer = (gradient.clamp(min=0) * attention).mean(dim=1)
        return torch.bmm(relevance[:, None], layer)[:, 0]
