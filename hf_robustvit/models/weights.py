"""Loading weights, and refusing those that are not whole."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError
from hf_robustvit.models.files import model_source, reading_model


def load_model(
    model_class: type[PreTrainedModel], name: str, state_dict: dict[str, torch.Tensor] | None = None, **how: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """`from_pretrained` without transformers' table of weights that do not fit, of which callers say what matters.

    Args:
        model_class: What is loaded.
        name: A folder, a Hub id, or the name of an embedded model.
        state_dict: The weights, where they are not the model's files.
        how: What else `from_pretrained` takes.

    Returns:
        The model, and its loading info: `missing_keys`, `unexpected_keys`, and `mismatched_keys`, whose weights are
        random.

    Raises:
        UserError: The weights cannot be read.
    """
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with reading_model(name):
            return model_class.from_pretrained(
                model_source(name) if state_dict is None else None,
                state_dict=state_dict,
                ignore_mismatched_sizes=True,  # so that they are in the info
                output_loading_info=True,
                **how,
            )
    finally:
        transformers.logging.set_verbosity(verbosity)


def check_whole(flag: str, name: str, report: dict[str, Any]) -> None:
    """Refuse a model some of whose weights are random, except for the mask token, which has no part in features.

    Args:
        flag: By which the model was named.
        name: The model.
        report: Its loading info.

    Raises:
        UserError: It lacks weights, or has some of another shape.
    """
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if missing:
        raise UserError(f"--{flag}: {name!r} lacks {len(missing)} weights (first: {missing[0]}): save it whole.")
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise UserError(
            f"--{flag}: the weights of {name!r} do not fit its config.json ({key} is {tuple(found)} instead of "
            f"{tuple(wanted)}): correct the file that is wrong."
        )
