"""robustvit.json, which lies beside a fine-tuned model's weights: how they came about, enough to repeat the run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_robustvit.errors import UserError
from hf_robustvit.files import read_json, refuse_other_types, replacing


TRAINING_RECORD = "robustvit.json"
RECORDED_PACKAGES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "pillow", "numpy")

# Their None is an answer; elsewhere it means that there is nothing to tell, and the key is left out.
_TOLD_IF_NONE = ("base_revision", "class_seed")


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that results depend on."""
    return {name: version(name) for name in RECORDED_PACKAGES}


@dataclass
class TrainingRecord:
    """The keys of robustvit.json. Records of earlier versions lack some of them.

    Attributes:
        method: The loss.
        hyper_parameters: Flags of the training with the values that differ from their defaults, and a few always.
        num_processes, precision: "no" (float32), "bf16" or "fp16".
        arguments: Flags of model, data and masks with the values that differ from their defaults.
        base_model, base_revision, base_licence: What was fine-tuned, its commit, and what its card says of a licence.
        dataset, mask_source: Where images and masks come from.
        swap_backgrounds, recombine_objects: How the images were shown.
        training_classes, held_out_classes: Names, no two alike.
        training_class_indices, held_out_class_indices: The same as indices of the model.
        training_class_wnids, held_out_class_wnids: The same, for a model of ImageNet's classes.
        prompt_template: What a CLIP-type model reads for a class.
        samples_per_class, class_seed: How the images were chosen.
        training_images, validation_images: Their ids.
        mask_foreground, mask_ignore, mask_orientation: How masks of the user's own are read, see `MaskReading`.
        versions: Of this package and those it stands on.
        validation: "before" and "after" -> figure -> value.
        best_checkpoint: Whether the weights are those of the best checkpoint, not of the last step.
        others: Keys of other versions.
    """

    method: str | None = None
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    num_processes: int | None = None
    precision: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    base_model: str | None = None
    base_revision: str | None = None
    base_licence: dict[str, str] | None = None
    dataset: str | None = None
    mask_source: str | None = None
    swap_backgrounds: bool | None = None
    recombine_objects: bool | None = None
    training_classes: list[str] | None = None
    held_out_classes: list[str] | None = None
    training_class_indices: list[int] | None = None
    held_out_class_indices: list[int] | None = None
    training_class_wnids: list[str] | None = None
    held_out_class_wnids: list[str] | None = None
    prompt_template: str | None = None
    samples_per_class: int | None = None
    class_seed: int | None = None
    training_images: list[str] | None = None
    validation_images: list[str] | None = None
    mask_foreground: list[str] | None = None
    mask_ignore: list[str] | None = None
    mask_orientation: str | None = None
    versions: dict[str, str] | None = None
    validation: dict[str, dict[str, float | int]] | None = None
    best_checkpoint: bool | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "TrainingRecord":
        """The record that a JSON object holds."""
        others = dict(content)
        known = {item.name: others.pop(item.name) for item in fields(cls) if item.name in others}
        return cls(**known | {"others": others})

    @classmethod
    def read(cls, path: str | os.PathLike) -> "TrainingRecord":
        """Read a record.

        Args:
            path: The file, or the folder that holds it.

        Raises:
            UserError: It is not one.
        """
        path = Path(path, TRAINING_RECORD) if os.path.isdir(path) else Path(path)
        try:
            content = read_json(path)
            refuse_other_types(content, cls)
        except ValueError as error:
            raise UserError(f"{path} is not the record of a fine-tuning run ({error}): remove it.") from error
        return cls.of(content)

    def content(self) -> dict[str, Any]:
        """The JSON object."""
        known = {name: value for name, value in vars(self).items() if value is not None or name in _TOLD_IF_NONE}
        return known | known.pop("others")

    def write(self, folder: str | os.PathLike) -> None:
        """Write robustvit.json into a folder, whole or not at all."""
        with replacing(Path(folder, TRAINING_RECORD)) as path:
            path.write_text(json.dumps(self.content(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
