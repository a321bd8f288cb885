"""All measurements of a benchmark in one pass: an image is read once, and what several of them need is made once."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from hf_robustvit.evaluation.images import BenchmarkImages, JointImages, are_preprocessed_alike
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.relevance import Explanation, explain


# The kinds of images that several measurements look at: those of the accuracy run, and those of the segmentation test.
PLAIN, SQUASHED = "plain", "squashed"

Columns = dict[str, Any]  # name -> one value an image


@dataclass(frozen=True)
class Batch:
    """A batch of a benchmark's images on the device.

    Attributes:
        run: The model and the benchmark.
        index: (batch,) int64, the rows of the images.
        inputs: Of each kind of images its `pixel_values` and, where it has them, `mask`.
    """

    run: BenchmarkRun
    index: torch.Tensor
    inputs: Mapping[str, Mapping[str, torch.Tensor]]

    @functools.cached_property
    def logits(self) -> torch.Tensor:
        """(batch, classes) float32 for the plain images; those of the explanation where it is of the same pixels."""
        if PLAIN not in self.inputs:
            return self.explanation.logits.float()
        return self.run.checkpoint.model(pixel_values=self.inputs[PLAIN]["pixel_values"]).logits.float()

    @functools.cached_property
    def explanation(self) -> Explanation:
        """Why the model gives the squashed images the classes it predicts."""
        pixel_values = self.inputs[SQUASHED]["pixel_values"]
        return explain(self.run.checkpoint.model, pixel_values, method=self.run.relevance_method)


@dataclass(frozen=True)
class Measurement:
    """What is measured of every image of a benchmark.

    Attributes:
        images: The kinds of images that it looks at. A name stands for the same images in all measurements.
        step: From a batch to columns, tensors with one row an image, all of them small.
        table: From these columns of all readable images, as arrays, and their rows, (images,) int64, to the columns of
            the result.
    """

    images: Mapping[str, BenchmarkImages]
    step: Callable[[Batch], dict[str, torch.Tensor]]
    table: Callable[[Columns, np.ndarray], Columns] = lambda columns, index: columns


def joint_images(*measurements: Measurement) -> JointImages:
    """All kinds of images that measurements look at; the plain ones only where they are not the squashed ones."""
    kinds = {name: images for measurement in measurements for name, images in measurement.images.items()}
    if {PLAIN, SQUASHED} <= kinds.keys() and are_preprocessed_alike(kinds[PLAIN], kinds[SQUASHED]):
        del kinds[PLAIN]
    return JointImages(kinds)


def measure(run: BenchmarkRun, *measurements: Measurement) -> pd.DataFrame:
    """Take measurements of all images in one pass.

    Returns:
        `image_id`, and the columns of all measurements; one row for each readable image.

    Raises:
        UserError: An image or mask cannot be read, and `run.options.skip_unreadable` is off; or none can be read.
    """
    images = joint_images(*measurements)

    def step(tensors: dict[str, Any]) -> dict[tuple[int, str], torch.Tensor]:
        batch = Batch(run, tensors["index"], tensors)
        outputs = enumerate(measurement.step(batch) for measurement in measurements)
        return {(number, name): values for number, columns in outputs for name, values in columns.items()}

    # Lean attention gives the same maps as eager, and makes forward passes without maps as fast as SDPA.
    found = run.over(images, step, attention="lean" if SQUASHED in images.kinds else "sdpa")
    frame = {"image_id": found.pop("image_id")}
    index = found.pop("index")
    for number, measurement in enumerate(measurements):
        columns = {name: values for (owner, name), values in found.items() if owner == number}
        frame |= measurement.table(columns, index)
    return pd.DataFrame(frame)


def hits(
    run: BenchmarkRun,
    images: Mapping[str, BenchmarkImages],
    around: Callable[[Mapping[str, torch.Tensor]], contextlib.AbstractContextManager] | None = None,
) -> Measurement:
    """Whether the model's first guess for each image, over all its classes, is the image's class.

    Args:
        run: The model and the benchmark.
        images: Kinds of images by the names of their figures, which are those of the bool columns.
        around: From the inputs of a kind to a context that the model runs in.
    """
    space = run.data.label_space

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        guesses = {}
        for figure in images:
            inputs = batch.inputs[figure]
            with around(inputs) if around else contextlib.nullcontext():
                logits = run.checkpoint.model(pixel_values=inputs["pixel_values"]).logits.float()
            guesses[figure] = space.guess(logits, 1)[0][:, 0]
        return guesses

    def table(columns: Columns, index: np.ndarray) -> Columns:
        right_indices, labels = space.right_indices, np.asarray(run.data.rows["label"][:])[index]
        return {
            figure: [guess in right_indices[label] for guess, label in zip(guesses, labels, strict=True)]
            for figure, guesses in columns.items()
        }

    return Measurement(images, step, table)
