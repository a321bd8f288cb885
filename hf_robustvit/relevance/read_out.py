"""Where the propagation starts: the tokens that the class score is read from, with their weights."""

import torch


def read_out(
    reads: str, tokens: torch.Tensor, num_prefix_tokens: int, gradient: torch.Tensor | None = None
) -> torch.Tensor | None:
    """The weight of every token of the last layer in the propagation's start.

    "attention pooling" weighs the tokens by its own map instead, see `gae.pooled_relevance`. For the others:

    - "cls", and "distillation" of whose two tokens the first is explained: the CLS token, which is None here.
    - "patches": the score is read from their mean, and so is the relevance: every patch has the same weight.
    - "cls and patches": the score is w_c z_CLS + w_p mean(z_patch). The CLS token weighs |w_c| and every patch |w_p|,
      the norms of the score's gradient in the two vectors, so that a half without weight adds nothing, and the map is
      then that of the other half's rule. The mean's 1 / N is not taken once more: the score's gradient in a patch's
      attention, by which Eq. 6 multiplies, holds it already, so the rows of the N patches add up to what the CLS
      token's single row stands beside. With 1 / N on both, the second half of the score would vanish from the map.

    Args:
        reads: As `Family.head_reads`.
        tokens: (batch, tokens, hidden size), the backbone's last hidden state.
        num_prefix_tokens: Number of tokens before the first patch.
        gradient: Of the explained score in `tokens`, for "cls and patches"; None where no score is explained, as in
            rollout, whose factors hold no gradients: the two halves are then equal.

    Returns:
        (batch, tokens), not negative, adding up to 1 for each image; None for the CLS token alone.
    """
    if reads in ("cls", "distillation"):
        return None
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    weights = torch.zeros(tokens.shape[:2], dtype=dtype, device=tokens.device)
    patches = weights[:, num_prefix_tokens:]
    if reads == "patches":
        patches.fill_(1)
    elif gradient is None:
        patches.fill_(1 / patches.shape[1])
        weights[:, 0] = 1
    else:
        gradient = gradient.detach().to(dtype)
        patches += gradient[:, num_prefix_tokens:].sum(dim=1).norm(dim=1, keepdim=True)
        weights[:, 0] = gradient[:, 0].norm(dim=1)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
