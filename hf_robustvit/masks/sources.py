"""What makes masks of the images themselves: `--source` of run_masks.py and `--masks` of run_finetune.py choose it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from hf_robustvit.flags.masks import SaliencyOptions, TextOptions, TokenCutOptions
from hf_robustvit.masks.backbone import BACKBONES
from hf_robustvit.masks.folder import Masker
from hf_robustvit.masks.saliency import SaliencyMasks
from hf_robustvit.masks.text import TextMasker
from hf_robustvit.masks.text_models import KNOWN
from hf_robustvit.masks.tokencut import TokenCut


class Source(NamedTuple):
    """A masker, made of its settings and the device it runs on; and the dataclass of these settings, its flags.

    `networks` are those of the settings that may be models on the Hub, each with the models that are suggested for it;
    it has a setting <name>_revision beside it.
    """

    options: type
    masker: Callable[[Any, torch.device], Masker]
    networks: Mapping[str, Sequence[str]] = MappingProxyType({})


# Under the names of `flags.masks.MADE_MASKS`.
SOURCES = {
    "tokencut": Source(TokenCutOptions, TokenCut, {"backbone": BACKBONES}),
    "text": Source(TextOptions, TextMasker, KNOWN),
    "saliency": Source(SaliencyOptions, SaliencyMasks),
}


def options_of(name: str, options: Iterable[Any]) -> Any:
    """Those of the settings, one of each of `OPTIONS`, that a source is made of."""
    return next(each for each in options if isinstance(each, SOURCES[name].options))
