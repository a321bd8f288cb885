"""Loading a classifier, and where its patches sit."""

import importlib


__all__ = ["attentions_of", "is_head", "load_classifier", "patch_layout"]


def __getattr__(name: str):
    # On first use: `models.files` finds out in no time that there is no such model.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("hf_robustvit.models.loading"), name)
