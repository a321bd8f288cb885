"""One model over one benchmark: predictions, figures, files; what is finished is not run again."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from accelerate import Accelerator
from transformers import PreTrainedModel

from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.evaluation.accuracy import accuracies, outcomes, predict
from hf_robustvit.evaluation.backgrounds import GreyBackgrounds, SwappedBackgrounds, background_outcomes
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.faithfulness import faithfulness_figures, measure_faithfulness
from hf_robustvit.evaluation.images import (
    BenchmarkImages,
    Preprocessing,
    benchmark_image_processor,
    segmentation_image_processor,
)
from hf_robustvit.evaluation.label_spaces import LabelSpace
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.oracle import ORACLE_FIGURE, ForegroundImages, oracle_accuracy
from hf_robustvit.evaluation.results import INTERVALS, BenchmarkResult, finished_result, write_result
from hf_robustvit.evaluation.segmentation import count_segmentation, segmentation_figures
from hf_robustvit.evaluation.statistics import difference_interval


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkData:
    """A data set to evaluate on.

    Attributes:
        name: Its name; one that ends in "segmentation" also gets the tests that need masks: the segmentation test, and
            whether the model follows its map.
        rows: `image`, `label`, `image_id`, and `mask` for these tests. A segmentation set may lack `label`.
        label_space: How its classes meet the model's; None where it has no labels.
        is_own_folder: A folder of the user's own, which gets these tests under any name.
        reading: How its masks are read, where they are the user's own.
    """

    name: str
    rows: datasets.Dataset
    label_space: LabelSpace | None
    is_own_folder: bool = False
    reading: MaskReading = NO_FLAGS

    @property
    def has_masks(self) -> bool:
        """Whether the tests that need masks are run on it."""
        return (self.is_own_folder or self.name.endswith("segmentation")) and "mask" in self.rows.column_names

    @property
    def allows_oracle(self) -> bool:
        """Whether it has the masks and labels that the oracle needs."""
        return self.label_space is not None and "mask" in self.rows.column_names


def evaluate_benchmark(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    output_dir: Path,
    accelerator: Accelerator,
    options: LoopOptions,
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
    oracle: bool = False,
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
        oracle: Also measure `oracle_accuracy`, where the set has masks and labels.

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
        }
        | (data.reading.settings() if data.has_masks else {}),
        weights=checkpoint.weights,
        data=data.rows._fingerprint,  # changes with the cached files and with every transformation since
    )
    oracle = oracle and data.allows_oracle
    stored = _finished(output_dir, planned, options, oracle)
    if stored:
        return stored

    checkpoint.model.to(accelerator.device).eval()
    measurements = {
        _predictions: data.label_space is not None,
        _segmentation: data.has_masks,
        _faithfulness: data.has_masks,
        _backgrounds: data.has_masks and data.label_space is not None,
        _oracle: oracle,
    }
    frame = pd.DataFrame({"image_id": data.rows["image_id"][:]})
    for measure in (measure for measure, applies in measurements.items() if applies):
        measured = measure(checkpoint, data, planned.protocol, options, accelerator)
        frame = frame.merge(measured, on="image_id", validate="one_to_one")
    figures = _figures(data, frame)

    readable = set(frame["image_id"])
    unreadable = [image_id for image_id in data.rows["image_id"] if image_id not in readable]
    result = replace(planned, num_images=len(frame), unreadable=unreadable, **figures)
    if accelerator.is_main_process:
        write_result(output_dir, result, frame)
    accelerator.wait_for_everyone()
    return result


def _figures(data: BenchmarkData, frame: pd.DataFrame) -> dict:
    """All figures of a result, from the rows of all its measurements."""
    figures = {}
    if data.label_space:
        figures |= accuracies(frame)
    if data.has_masks:
        figures |= segmentation_figures(frame) | faithfulness_figures(frame)
    if ORACLE_FIGURE in frame:
        correct = outcomes(frame)
        interval = difference_interval(correct["top1"].to_numpy(), correct[ORACLE_FIGURE].to_numpy())
        figures["oracle_headroom_ci95"] = [100 * bound for bound in interval]
        headroom = figures[ORACLE_FIGURE] - figures["top1"]
        logger.info(
            "%s: with attention to the object only, top-1 is %.2f instead of %.2f, %+.2f [%.2f, %.2f]: an "
            "indication of what better maps could gain",
            *(data.name, figures[ORACLE_FIGURE], figures["top1"], headroom, *figures["oracle_headroom_ci95"]),
        )
    figures["interval"] = {name: kind for name, kind in INTERVALS.items() if name in figures}
    return figures


def _predictions(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    images = _images(checkpoint, data, protocol)
    labels = np.asarray(data.rows["label"][:])
    with _attention(checkpoint.model, "sdpa"):
        return predict(checkpoint, images, labels, data.label_space, options, accelerator, data.name)


def _segmentation(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    images = _squashed_images(checkpoint, data, protocol)
    return count_segmentation(checkpoint, images, options, accelerator, f"{data.name}: maps")


def _faithfulness(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    images = _squashed_images(checkpoint, data, protocol)
    with _attention(checkpoint.model, "lean"):  # the same maps, and the many other forward passes are as fast as SDPA
        return measure_faithfulness(checkpoint, images, options, accelerator, f"{data.name}: insertion and deletion")


def _backgrounds(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    grey, swapped = (_images(checkpoint, data, protocol, kind) for kind in (GreyBackgrounds, SwappedBackgrounds))
    labels = np.asarray(data.rows["label"][:])
    with _attention(checkpoint.model, "sdpa"):
        return background_outcomes(
            checkpoint, grey, swapped, labels, data.label_space, options, accelerator, data.name
        )


def _oracle(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    options: LoopOptions,
    accelerator: Accelerator,
) -> pd.DataFrame:
    images = _images(checkpoint, data, protocol, ForegroundImages, with_masks=True)
    labels = np.asarray(data.rows["label"][:])
    with _attention(checkpoint.model, "sdpa"):
        return oracle_accuracy(
            checkpoint, images, labels, data.label_space, options, accelerator, f"{data.name}: oracle"
        )


def _images(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    protocol: dict,
    kind: type[BenchmarkImages] = BenchmarkImages,
    processor_for: Callable = benchmark_image_processor,
    **with_masks: bool,
) -> BenchmarkImages:
    """The images as the accuracy run takes them, or in another preprocessing."""
    processor = processor_for(protocol["preprocessing"], checkpoint.image_processor, checkpoint.model.config)
    own = {"turned": data.is_own_folder, "reading": data.reading}
    return kind(data.rows, processor, protocol["crop_border"], **own, **with_masks)


def _squashed_images(checkpoint: Checkpoint, data: BenchmarkData, protocol: dict) -> BenchmarkImages:
    """The images with their masks as the segmentation test takes them."""
    return _images(checkpoint, data, protocol, processor_for=segmentation_image_processor, with_masks=True)


def _finished(
    output_dir: Path, planned: BenchmarkResult, options: LoopOptions, oracle: bool
) -> BenchmarkResult | None:
    """The result on disk, if it is the one that is planned and nothing that is asked for is missing."""
    stored = finished_result(output_dir, planned.dataset)
    if stored is None:
        return None
    if stored.same_run(planned) and (options.skip_unreadable or not stored.unreadable):
        if stored.top1_oracle is not None or not oracle:
            logger.info("%s is finished in %s and not run again", planned.dataset, output_dir)
            return stored
        logger.info("%s has no oracle in %s and is run again", planned.dataset, output_dir)
        return None
    logger.warning(
        "%s in %s was made by another model, data set or protocol and is run again", planned.dataset, output_dir
    )
    return None


@contextlib.contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Another attention function for a while: one that keeps no weights where none are needed."""
    loaded_with = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(loaded_with)
