"""A loaded model with what an evaluation must know about where it comes from."""

import functools
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_robustvit.data.labels import imagenet_classes
from hf_robustvit.errors import UserError
from hf_robustvit.models.files import commit_of, find_model_file
from hf_robustvit.models.loading import load_classifier
from hf_robustvit.record import TRAINING_RECORD, TrainingRecord


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A model under evaluation.

    Attributes:
        name: As the user gave it: a Hub id, a folder, or a name that `load_classifier` knows.
        revision: The Hub commit, where there is one.
        model: The classifier.
        image_processor: Its preprocessing.
        training_classes: The class names it was fine-tuned on, where it records them.
        training_class_indices: Which of the model's classes these are, where it records that too.
        input_size: Height and width of its input, where that is not the checkpoint's own.
        takes_classes: Whether it is a CLIP-type model that brings no class names, and has ImageNet's meanwhile.
        training_set, training_images: The data set it was fine-tuned on, as it was named then, and the images' ids.
    """

    name: str
    revision: str | None
    model: PreTrainedModel
    image_processor: Any
    training_classes: frozenset[str] | None = None
    training_class_indices: frozenset[int] | None = None
    input_size: int | None = None
    takes_classes: bool = False
    training_set: str = ""
    training_images: frozenset[str] = frozenset()

    @classmethod
    def load(cls, name: str, revision: str | None = None, input_size: int | None = None, **head: Any) -> "Checkpoint":
        """Load a model, as `load_classifier` does; `head` are its `class_names` and `prompt_template`."""
        loaded = cls.of(name, revision, *load_classifier(name, revision, image_size=input_size, **head))
        return replace(loaded, input_size=input_size)

    @classmethod
    def of(cls, name: str, revision: str | None, model: PreTrainedModel, image_processor) -> "Checkpoint":
        """Complete a loaded model by its commit and by what its folder says about its training."""
        record = _training_record(name, revision)
        names, indices = (
            frozenset(classes) if classes else None
            for classes in (record.training_classes, record.training_class_indices)
        )
        if names and indices is None:  # of an earlier version
            counts = Counter(model.config.id2label.values())
            shared = sorted(class_name for class_name in names if counts[class_name] > 1)
            if shared:
                logger.warning(
                    "%s records its training classes by name alone, and several of its classes are called %s: all of "
                    "these count as training classes.",
                    name,
                    " and ".join(map(repr, shared)),
                )
        images = {"training_set": record.dataset or "", "training_images": frozenset(record.training_images or ())}
        return cls(name, commit_of(name, revision), model, image_processor, names, indices, **images)

    @property
    def knows_imagenet(self) -> bool:
        """Whether its classes are ImageNet's 1000, in whatever order."""
        return imagenet_classes(self.model.config) is not None

    @functools.cached_property
    def weights(self) -> str:
        """A fingerprint of the weights: the same folder may hold another model tomorrow, or be given other classes."""
        digest = hashlib.sha256()
        for name, weight in sorted((dict(self.model.named_buffers()) | self.model.state_dict()).items()):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def was_trained_on(self, class_index: int) -> bool:
        """Whether a class of the model is one of its training classes."""
        if self.training_class_indices is not None:
            return class_index in self.training_class_indices
        return self.model.config.id2label[class_index] in self.training_classes

    def images_trained_on(self, folder_name: str, image_ids: Iterable[str]) -> frozenset[str]:
        """Those of a folder's images that are called as training images are, if these came from a folder so named."""
        is_same = os.path.basename(os.path.abspath(self.training_set)) == folder_name
        return self.training_images.intersection(image_ids) if is_same else frozenset()


def _training_record(name: str, revision: str | None) -> TrainingRecord:
    """A model's robustvit.json, in its folder or its Hub repository; empty where there is none."""
    try:
        path = find_model_file(name, TRAINING_RECORD, revision)
    except UserError:  # it is not in the cache, and the Hub cannot be reached
        path = None
    return TrainingRecord.read(path) if path else TrainingRecord()
