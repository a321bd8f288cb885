"""Between a model and what fine-tuning made of it: interpolated weights (WiSE-FT)."""

import copy

import torch
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError


def interpolate_weights(original: PreTrainedModel, finetuned: PreTrainedModel, share: float) -> PreTrainedModel:
    """A new model whose every weight lies between those of two models.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (2022): often as robust as the original and as accurate
    as the fine-tuned model, without any further training. As a control it shows what a step of that length reaches.

    Args:
        original: The model before fine-tuning.
        finetuned: The model after.
        share: Of the fine-tuned weights, in [0, 1]: 0 gives the original's, 1 the fine-tuned's.

    Returns:
        (1 - share) * original + share * finetuned, on the fine-tuned model's device and otherwise a copy of it.

    Raises:
        UserError: The share is out of range, or the models differ in architecture, shape or classes.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share is {share}, but it is a share of the fine-tuned weights: give a number from 0 to 1.")
    before, after = original.state_dict(), finetuned.state_dict()
    shapes = [{name: weight.shape for name, weight in weights.items()} for weights in (before, after)]
    if type(original) is not type(finetuned) or shapes[0] != shapes[1]:
        raise UserError(
            f"{original.name_or_path!r} and {finetuned.name_or_path!r} have weights of different names or shapes, so "
            "nothing lies between them: give a model and the one it was fine-tuned from."
        )
    if original.config.id2label != finetuned.config.id2label:
        raise UserError(
            f"{original.name_or_path!r} and {finetuned.name_or_path!r} have different classes, so their heads cannot "
            "be mixed: give a model and the one it was fine-tuned from."
        )
    mixed = copy.deepcopy(finetuned)
    mixed.load_state_dict({name: torch.lerp(before[name].to(weight), weight, share) for name, weight in after.items()})
    for name, buffer in mixed.named_buffers():  # a CLIP-type model's text features are no part of its state
        if buffer.is_floating_point():
            buffer.copy_(torch.lerp(original.get_buffer(name).to(buffer), finetuned.get_buffer(name), share))
    return mixed
