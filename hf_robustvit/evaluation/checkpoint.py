"""A loaded model with what an evaluation must know about where it comes from."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import cached_file

from hf_robustvit.model_files import TRAINING_RECORD, commit_of


@dataclass(frozen=True)
class Checkpoint:
    """A model under evaluation.

    Attributes:
        name: As the user gave it: a Hub id, a folder, or a name that `load_classifier` knows.
        revision: The Hub commit, where there is one.
        model: The classifier.
        image_processor: Its preprocessing.
        training_classes: The class names it was fine-tuned on, where it records them.
    """

    name: str
    revision: str | None
    model: PreTrainedModel
    image_processor: Any
    training_classes: frozenset[str] | None = None

    @classmethod
    def of(cls, name: str, revision: str | None, model: PreTrainedModel, image_processor) -> "Checkpoint":
        """Complete a loaded model by its commit and by what its folder says about its training."""
        return cls(name, commit_of(name, revision), model, image_processor, _training_classes(name, revision))

    @functools.cached_property
    def weights(self) -> str:
        """A fingerprint of the weights: the same folder may hold another model tomorrow."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def was_trained_on(self, class_index: int) -> bool:
        """Whether a class of the model is one of its training classes."""
        return self.model.config.id2label[class_index] in self.training_classes


def _training_classes(name: str, revision: str | None) -> frozenset[str] | None:
    """The training classes in a model's robustvit.json, in its folder or its Hub repository."""
    if Path(name).is_dir():
        path = Path(name) / TRAINING_RECORD
        path = path if path.is_file() else None
    elif "/" in name:
        quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        path = cached_file(name, TRAINING_RECORD, revision=revision, **quiet)
    else:
        path = None
    if path is None:
        return None
    classes = json.loads(Path(path).read_text(encoding="utf-8")).get("training_classes")
    return frozenset(classes) if classes else None
