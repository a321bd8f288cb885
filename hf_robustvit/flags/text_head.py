"""What a CLIP-type model classifies by."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArg

from hf_robustvit.errors import UserError


@dataclass(kw_only=True)
class TextHeadArguments:
    """The classes of a CLIP-type model, and what it reads for one."""

    class_names: str | None = HfArg(
        default=None,
        help="Text file of a CLIP-type model's classes, one on each line. Default: those that it was fine-tuned with, "
        "else those of the data (ImageNet's for its wnids and sets).",
    )
    prompt_template: str | None = HfArg(
        default=None, help='What a CLIP-type model reads for a class. Default: as fine-tuned, or "a photo of a {}."'
    )

    def text_head(self) -> dict[str, Any]:
        """The arguments of `load_classifier` that these stand for.

        Raises:
            UserError: The file of names cannot be used.
        """
        names = read_class_names(self.class_names) if self.class_names else None
        return {"class_names": names, "prompt_template": self.prompt_template}


def read_class_names(path: str | os.PathLike) -> list[str]:
    """The class names in a text file, one on each line.

    Raises:
        UserError: It cannot be read, is empty, or has a name twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class_names: {path} cannot be read ({error}): name a text file.") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"--class_names: {path} is empty: write one class name on each line.")
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise UserError(f"--class_names: {path} has the name {twice!r} twice: each class needs a name of its own.")
    return names
