"""Flags of what makes masks, where nothing makes any."""

from collections.abc import Sequence
from typing import Any

from hf_robustvit.errors import UserError
from hf_robustvit.masks import SOURCES, QualityGate, options_of
from hf_robustvit.trainer.repetition import changed_settings


def refuse_unused(masks: str, gate: QualityGate, mask_options: Sequence[Any], before: str = "") -> None:
    """Refuse the flags of a source of masks that is not asked for, and those of the gate where no source is.

    Args:
        masks: The value of --masks; anything but the name of a source makes none.
        gate: The gate's flags.
        mask_options: The sources', one of each of `OPTIONS`.
        before: A flag that --masks needs.

    Raises:
        UserError: There is one.
    """
    given = {flag: source for source in SOURCES for flag in changed_settings(options_of(source, mask_options))}
    unused = [(flag, f"{before}--masks {source}") for flag, source in given.items() if source != masks]
    if masks not in SOURCES:
        unused += [(flag, f"{before}--masks {' or '.join(SOURCES)}") for flag in changed_settings(gate)]
    if unused:
        flag, remedy = unused[0]
        hint = " (the size of the model's input is --input_size)" if flag == "image_size" else ""
        raise UserError(f"--{flag} is not used by --masks {masks}: leave it out{hint}, or pass {remedy}.")
