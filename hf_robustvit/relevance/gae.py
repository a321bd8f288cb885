"""Generic Attention Explainability (paper App. B), for the CLS token's row only."""

from collections.abc import Sequence

import torch


def cls_relevance(attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Relevance of every token for the CLS token: the first row of R after Eq. 6-7.

    Eq. 7 multiplies R from the left, layer after layer, so its first row is e_CLS (I + A_L) ... (I + A_1). Taking the
    factors from the left keeps one row, (batch, tokens), where the published order needs a (tokens, tokens) product
    for each layer.

    Args:
        attentions: One (batch, heads, tokens, tokens) tensor for each layer, first layer first: A of Eq. 6.
        gradients: The gradient of the explained score in each of them.

    Returns:
        (batch, tokens) float32 (float64 where the attentions are), not negative; column 0 is the CLS token itself.
    """
    relevance = None
    for attention, gradient in reversed(list(zip(attentions, gradients, strict=True))):
        # Half-precision products lose the small entries that the map is made of.
        dtype = torch.promote_types(attention.dtype, torch.float32)
        with torch.autocast(attention.device.type, enabled=False):
            if relevance is None:
                relevance = torch.zeros(attention.shape[0], attention.shape[-1], dtype=dtype, device=attention.device)
                relevance[:, 0] = 1
            layer = (gradient.to(dtype) * attention.to(dtype)).clamp(min=0).mean(dim=1)  # (batch, tokens, tokens)
            relevance = relevance + torch.bmm(relevance[:, None], layer)[:, 0]  # (batch, tokens)
    return relevance
