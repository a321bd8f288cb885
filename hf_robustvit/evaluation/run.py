"""One model over one benchmark, as the measurements are given it."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from transformers import PretrainedConfig, PreTrainedModel

from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.benchmark_rows import BenchmarkRows, Render
from hf_robustvit.data.content import content_digest
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import (
    BenchmarkImages,
    Preprocessing,
    benchmark_image_processor,
    segmentation_image_processor,
)
from hf_robustvit.evaluation.label_spaces import LabelSpace, match_classes
from hf_robustvit.evaluation.loop import LoopOptions, run_over_images


@dataclass(frozen=True)
class BenchmarkData:
    """A data set to evaluate a model on.

    Attributes:
        label_space: How its classes meet the model's; None where it has no labels.
        name, rows, tests_masks, is_own_folder, reading, render, left_out, whole, ablates: As in `BenchmarkRows`.
    """

    name: str
    rows: datasets.Dataset
    label_space: LabelSpace | None
    tests_masks: bool = False
    is_own_folder: bool = False
    reading: MaskReading = NO_FLAGS
    render: Render | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    whole: bool = False
    ablates: bool = False

    @classmethod
    def for_model(cls, found: BenchmarkRows, config: PretrainedConfig) -> "BenchmarkData":
        """A data set with its classes among a model's.

        Raises:
            UserError: The model does not know all its classes.
        """
        space = None
        if "label" in found.rows.column_names:
            class_names = found.rows.features["label"].names
            known, own = found.imagenet_indices, found.is_own_folder
            space = match_classes(found.name, class_names, known, config, found.decision, can_be_renamed=own)
        same = ("name", "rows", "tests_masks", "is_own_folder", "reading", "render", "left_out", "whole", "ablates")
        return cls(label_space=space, **{name: getattr(found, name) for name in same})

    @functools.cached_property
    def content(self) -> str:
        """What its rows hold, see `content_digest`."""
        return content_digest(self.rows)

    @property
    def has_masks(self) -> bool:
        """Whether its rows have masks."""
        return "mask" in self.rows.column_names

    @property
    def first_indices(self) -> torch.Tensor:
        """(images,) int64, the model's class of each row, the first where it is several."""
        return torch.tensor(self.label_space.first_indices)[torch.tensor(self.rows["label"][:])]

    def named(self, image_ids: Sequence[str]) -> "BenchmarkData":
        """These of its images alone, in this order."""
        position = {image_id: row for row, image_id in enumerate(self.rows["image_id"])}
        return replace(self, rows=self.rows.select([position[image_id] for image_id in image_ids]))

    def images(
        self,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing = "checkpoint",
        crop_border: int = 0,
        kind: type[BenchmarkImages] = BenchmarkImages,
        squashed: bool = False,
        **with_masks: bool,
    ) -> BenchmarkImages:
        """The images as a model's accuracy run takes them or, squashed, as its segmentation test does.

        Rendered images are of the input's size already: nothing is left to squash or crop.
        """
        squashed = squashed or self.whole or self.render is not None
        processor_for = segmentation_image_processor if squashed else benchmark_image_processor
        processor = processor_for(preprocessing, checkpoint.image_processor, checkpoint.model.config)
        own = {"turned": self.is_own_folder, "reading": self.reading, "render": self.render}
        return kind(self.rows, processor, crop_border, **own, **with_masks)


@dataclass(frozen=True)
class BenchmarkRun:
    """A model over a benchmark.

    Attributes:
        checkpoint: The model.
        data: The benchmark.
        accelerator: The processes and the device.
        options: How images are fed, and the precision.
        preprocessing: "checkpoint" or "paper"; see `benchmark_image_processor`.
        crop_border: Pixels cut from each side of an image first.
        oracle: Whether the oracle is asked for, where the set has masks and labels.
        faithfulness: Whether the costly tests of maps are asked for, where the set gets the tests that need masks.
        relevance_method: The rule that makes the maps, see `explain`.
    """

    checkpoint: Checkpoint
    data: BenchmarkData
    accelerator: Accelerator
    options: LoopOptions
    preprocessing: Preprocessing = "checkpoint"
    crop_border: int = 0
    oracle: bool = False
    faithfulness: bool = False
    relevance_method: str = "gae"

    @property
    def protocol(self) -> dict[str, Any]:
        """What the figures depend on beside the model and the data, for the record."""
        protocol = {
            "preprocessing": self.preprocessing,
            "label_space": self.data.label_space.name if self.data.label_space else None,
            "crop_border": self.crop_border,
            "precision": "bf16" if self.options.bf16 else "fp32",
        }
        if self.data.is_own_folder and self.data.has_masks:
            protocol |= self.data.reading.settings()
        if self.relevance_method != "gae":
            protocol["relevance_method"] = self.relevance_method
        if self.checkpoint.input_size is not None:
            protocol["input_size"] = self.checkpoint.input_size
        if self.data.whole:
            protocol["images"] = "whole"
        if self.data.render:
            protocol |= {"objects": len(self.data.rows.unique("object")), "left_out": dict(self.data.left_out)}
        return protocol

    def images(
        self, kind: type[BenchmarkImages] = BenchmarkImages, squashed: bool = False, **with_masks: bool
    ) -> BenchmarkImages:
        """The images as `BenchmarkData.images` gives them."""
        return self.data.images(self.checkpoint, self.preprocessing, self.crop_border, kind, squashed, **with_masks)

    def over(
        self,
        images: BenchmarkImages,
        step: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
        what: str = "",
        attention: str = "sdpa",
    ) -> dict[str, np.ndarray]:
        """Apply a step to all images, see `run_over_images`, under an attention function that keeps no maps.

        Args:
            images: The images.
            step: From a batch on the device to tensors with one row an image.
            what: What is measured, for the progress bar.
            attention: "sdpa", or "lean" where maps are explained.
        """
        description = f"{self.data.name}: {what}" if what else self.data.name
        with _attention(self.checkpoint.model, attention):
            return run_over_images(step, images, self.options, self.accelerator, description)


@contextlib.contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Another attention function for a while; a text tower, which may be a configuration alone, keeps its own."""
    loaded_with = model.config._attn_implementation
    model.set_attn_implementation({"": implementation, "vision_config": implementation})
    try:
        yield
    finally:
        model.set_attn_implementation({"": loaded_with, "vision_config": loaded_with})
