"""Fine-tune Vision Transformer classifiers by their relevance maps (Chefer, Schwartz and Wolf, NeurIPS 2022)."""

import importlib


__version__ = "0.1.0"

# Loaded on first use, so that `import hf_robustvit` costs nothing.
_HOMES = {
    "explain": "hf_robustvit.relevance",
    "load_classifier": "hf_robustvit.models.loading",
    "RobustViTConfig": "hf_robustvit.config",
    "RobustViTTrainer": "hf_robustvit.trainer.trainer",
}

__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
