"""Which attention function suits a model, by its tokens, its precision and the memory there is."""

import psutil
import torch
from transformers import PreTrainedConfig

from hf_robustvit.lean.attention import KEPT, LEAN


MANY_TOKENS = 400  # from which recomputing the maps takes some percent of a step
IMAGES_WITH_MAPS = 8


def fastest_attention(config: PreTrainedConfig, num_tokens: int, dtype: torch.dtype | None) -> tuple[str, str]:
    """The attention function that trains fastest within the memory there is, and why it is that one.

    Args:
        config: Of the image tower.
        num_tokens: Of an image, with those before its patches.
        dtype: Type of the weights; None is float32.
    """
    if getattr(config, "attention_probs_dropout_prob", None) or getattr(config, "attention_dropout", None):
        return "eager", "the model drops attention in training"
    on_gpu = torch.cuda.is_available()
    free = torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available
    # Two maps in float32 of each head and layer, as many as eager attention in bfloat16 needs.
    maps = IMAGES_WITH_MAPS * 8 * config.num_hidden_layers * config.num_attention_heads * num_tokens**2
    have_room = maps < free / 8  # much larger batches must fit too
    share = f"{maps / 2**30:.2g} of {free / 2**30:.3g} GiB"
    found = f"{num_tokens} tokens, whose maps for {IMAGES_WITH_MAPS} images take {share}"
    if dtype == torch.bfloat16 and not on_gpu and have_room:
        return "eager", f"{found}; a CPU keeps maps in bfloat16 faster than it recomputes them"
    if num_tokens >= MANY_TOKENS and have_room:
        return KEPT, f"{found} and are kept"
    return LEAN, f"{found} and are recomputed"
