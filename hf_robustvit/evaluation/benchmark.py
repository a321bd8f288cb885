"""One model over one benchmark: predictions, figures, files; what is finished is not run again."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from accelerate import Accelerator
from transformers import PreTrainedModel

from hf_robustvit.evaluation.accuracy import accuracies, predict
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import (
    BenchmarkImages,
    Preprocessing,
    benchmark_image_processor,
    segmentation_image_processor,
)
from hf_robustvit.evaluation.label_spaces import LabelSpace
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.results import BenchmarkResult, read_result, write_result
from hf_robustvit.evaluation.segmentation import count_segmentation, segmentation_figures


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkData:
    """A data set to evaluate on.

    Attributes:
        name: Its name; one that ends in "segmentation" also gets the segmentation test.
        rows: `image`, `label`, `image_id`, and `mask` for the segmentation test. A segmentation set may lack `label`.
        label_space: How its classes meet the model's; None where it has no labels.
    """

    name: str
    rows: datasets.Dataset
    label_space: LabelSpace | None

    @property
    def has_masks(self) -> bool:
        return self.name.endswith("segmentation") and "mask" in self.rows.column_names


def evaluate_benchmark(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    output_dir: Path,
    accelerator: Accelerator,
    options: LoopOptions,
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
) -> BenchmarkResult:
    """Evaluate a model on a benchmark and write `<name>.json` and `<name>.predictions.parquet`.

    A data set that the same weights have finished under the same protocol is read back instead.

    Args:
        checkpoint: The model.
        data: The benchmark.
        output_dir: Where the files go.
        accelerator: The processes and the device.
        options: How images are fed, and the precision.
        preprocessing: "checkpoint" or "paper"; see `benchmark_image_processor`.
        crop_border: Pixels cut from each side of an image first.

    Raises:
        UserError: An image cannot be read and `options.skip_unreadable` is off, or none can be read.
    """
    planned = BenchmarkResult(
        dataset=data.name,
        model=checkpoint.name,
        revision=checkpoint.revision,
        num_images=len(data.rows),
        protocol={
            "preprocessing": preprocessing,
            "label_space": data.label_space.name if data.label_space else None,
            "crop_border": crop_border,
            "precision": "bf16" if options.bf16 else "fp32",
        },
        weights=checkpoint.weights,
        data=data.rows._fingerprint,  # changes with the cached files and with every transformation since
    )
    stored = _finished(output_dir, planned, options)
    if stored:
        return stored

    checkpoint.model.to(accelerator.device).eval()
    frame, figures = pd.DataFrame({"image_id": data.rows["image_id"][:]}), {}
    if data.label_space:
        predictions = _predictions(checkpoint, data, planned.protocol, options, accelerator)
        frame, figures = frame.merge(predictions, on="image_id"), figures | accuracies(predictions)
    if data.has_masks:
        counts = _segmentation(checkpoint, data, planned.protocol, options, accelerator)
        frame, figures = frame.merge(counts, on="image_id"), figures | segmentation_figures(counts)

    readable = set(frame["image_id"])
    unreadable = [image_id for image_id in data.rows["image_id"] if image_id not in readable]
    result = replace(planned, num_images=len(frame), unreadable=unreadable, **figures)
    if accelerator.is_main_process:
        write_result(output_dir, result, frame)
    accelerator.wait_for_everyone()
    return result


def _predictions(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    config = checkpoint.model.config
    processor = benchmark_image_processor(protocol["preprocessing"], checkpoint.image_processor, config)
    images = BenchmarkImages(data.rows, processor, protocol["crop_border"])
    labels = np.asarray(data.rows["label"][:])
    with _fast_attention(checkpoint.model):
        return predict(checkpoint, images, labels, data.label_space, options, accelerator, data.name)


def _segmentation(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    config = checkpoint.model.config
    processor = segmentation_image_processor(protocol["preprocessing"], checkpoint.image_processor, config)
    images = BenchmarkImages(data.rows, processor, protocol["crop_border"], with_masks=True)
    return count_segmentation(checkpoint, images, options, accelerator, f"{data.name}: maps")


def _finished(output_dir: Path, planned: BenchmarkResult, options: LoopOptions) -> BenchmarkResult | None:
    """The result on disk, if it is the one that is planned."""
    stored = read_result(output_dir, planned.dataset)
    if stored is None:
        return None
    if stored.same_run(planned) and (options.skip_unreadable or not stored.unreadable):
        logger.info("%s is finished in %s and not run again", planned.dataset, output_dir)
        return stored
    logger.warning(
        "%s in %s was made by another model, data set or protocol and is run again", planned.dataset, output_dir
    )
    return None


@contextlib.contextmanager
def _fast_attention(model: PreTrainedModel) -> Iterator[None]:
    """Attention that keeps no weights, while none are needed."""
    loaded_with = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(loaded_with)
