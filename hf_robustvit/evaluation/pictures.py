"""What models say of a few images, computed for those who draw it: the images as the models saw them, and the maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import torch
from transformers import PreTrainedModel

from hf_robustvit.data import distinct_class_names
from hf_robustvit.data.transforms import normalization
from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.comparison import pair_predictions
from hf_robustvit.evaluation.examples import choose_kinds, evenly_spaced
from hf_robustvit.evaluation.images import Preprocessing
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.relevance import explain


# Enough to see what a model looks at, few enough for one page.
NUM_SHOWN = 8
# Of each kind and data set: enough to see a pattern, few enough for a report of some megabytes.
NUM_EXAMPLES = 6


@dataclass(frozen=True)
class ExplainedBatch:
    """What one model says of a batch of images.

    Attributes:
        maps: (batch, height, width) float32 in [0, 1], relevance for the explained class.
        predictions: The explained classes' names, no two classes alike: the predicted ones, unless others were asked
            for.
        confidences: Their probabilities.
        probabilities: (batch, classes) float32, of all classes.
        is_right: Whether each is the image's class; `None` where that is told by the name.
        images: (batch, height, width, 3) in [0, 1], as this model saw them; `None` where all models see the same.
    """

    maps: np.ndarray
    predictions: list[str]
    confidences: list[float]
    probabilities: torch.Tensor
    is_right: list[bool] | None = None
    images: np.ndarray | None = None


@dataclass(frozen=True)
class ExplainedImages:
    """Images, with what each of several models says of them.

    Attributes:
        images: (batch, height, width, 3) in [0, 1], as the last model saw them.
        labels: Their classes, empty where there are none.
        explained: The model's title -> what it says.
        masks: (batch, height, width) in [0, 1], or `None` where there are none.
    """

    images: np.ndarray
    labels: list[str]
    explained: Mapping[str, ExplainedBatch]
    masks: np.ndarray | None = None


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its results.

    Attributes:
        title: "before", "after" or "model".
        checkpoint: The model.
        folder: Where its results are.
        results: One for each data set.
        data: The data sets, in the same order.
    """

    title: str
    checkpoint: Checkpoint
    folder: Path
    results: Sequence[BenchmarkResult]
    data: Sequence[BenchmarkData]


@dataclass(frozen=True)
class Answer:
    """What a model said of an image.

    Attributes:
        model: The model's title.
        prediction: The class that it predicted.
        confidence: That class's probability.
        is_right: Whether it is the image's class.
        image: (height, width, 3) in [0, 1], the image as the model saw it.
        relevance: (height, width) in [0, 1], its map for that class.
    """

    model: str
    prediction: str
    confidence: float
    is_right: bool
    image: np.ndarray
    relevance: np.ndarray


@dataclass(frozen=True)
class Example:
    """An image that stands for what changed, or for what a model gets right and wrong.

    Attributes:
        image_id: Its name.
        class_name: Its class.
        answers: One of each model.
    """

    image_id: str
    class_name: str
    answers: Sequence[Answer]


def explain_batch(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    target: int | Sequence[int] | None = None,
    method: str = "gae",
) -> ExplainedBatch:
    """Explain one class of each image.

    Args:
        model: The classifier; it is in its old mode afterwards.
        pixel_values: (batch, 3, height, width), normalised, on any device.
        target: The class to explain, or one for each image; the predicted ones if `None`.
        method: The rule that makes the maps, see `explain`.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        explanation = explain(model, pixel_values.to(model.device), target, method)
    model.train(was_training)
    probabilities, names = explanation.logits.float().softmax(dim=-1), distinct_class_names(model.config)
    return ExplainedBatch(
        maps=explanation.relevance[:, 0].float().cpu().numpy(),
        predictions=[names[index] for index in explanation.target.tolist()],
        confidences=probabilities.gather(1, explanation.target[:, None])[:, 0].tolist(),
        probabilities=probabilities.cpu(),
    )


def explain_picture(
    model: PreTrainedModel,
    image_processor,
    picture: PIL.Image.Image,
    target: int | None = None,
    method: str = "gae",
) -> ExplainedImages:
    """Explain a class of one picture, an RGB image of any size; the predicted class if `target` is `None`."""
    pixel_values = image_processor(picture, return_tensors="pt")["pixel_values"].float()  # (1, 3, height, width)
    explained = {"relevance": explain_batch(model, pixel_values, target, method)}
    return ExplainedImages(denormalize(pixel_values, image_processor), [""], explained)


def spread(data: BenchmarkData) -> BenchmarkData:
    """A few of the images: evenly spaced rows, sorted by class."""
    labels = data.rows["label"][:] if data.label_space else [0] * len(data.rows)
    by_class = np.argsort(labels, kind="stable")
    return replace(data, rows=data.rows.select(by_class[evenly_spaced(len(by_class), NUM_SHOWN)]))


def explain_rows(
    models: Mapping[str, tuple[Checkpoint, BenchmarkData]],
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
    method: str = "gae",
) -> ExplainedImages | None:
    """Explain the predicted classes of all images of a data set by every model; `None` where none can be read.

    Args:
        models: The model's title -> the model, and the same images with their classes among its own, which may have
            other names. Where they have masks the image is squashed to the input size instead of cropped, as in the
            segmentation test.
        preprocessing, crop_border: As for `evaluate_benchmark`.
        method: The rule that makes the maps, see `explain`.
    """
    explained = {}
    for title, (checkpoint, data) in models.items():
        images = data.images(
            checkpoint, preprocessing, crop_border, squashed=data.has_masks, with_masks=data.has_masks
        )
        shown = [item for item in (images[row] for row in range(len(images))) if item["readable"]]
        if not shown:
            return None
        pixel_values = torch.stack([item["pixel_values"] for item in shown])
        colours = denormalize(pixel_values, images.image_processor)
        explained[title] = replace(explain_batch(checkpoint.model, pixel_values, method=method), images=colours)
        labels = [""] * len(shown)
        if data.label_space:
            names, all_labels = distinct_class_names(checkpoint.model.config), data.rows["label"][:]
            space, own = data.label_space, [all_labels[item["index"]] for item in shown]
            right = [[names[index] for index in space.right_indices[label]] for label in own]
            labels = [
                space.class_names[label] if space.decision != "first" else names[space.first_indices[label]]
                for label in own
            ]
            is_right = [guess in each for guess, each in zip(explained[title].predictions, right, strict=True)]
            explained[title] = replace(explained[title], is_right=is_right)
    return ExplainedImages(
        colours,
        labels,
        explained,
        np.stack([item["mask"] for item in shown]).clip(min=0).astype(np.float32) if data.has_masks else None,
    )


def explain_examples(models: Sequence[EvaluatedModel]) -> Iterator[tuple[str, dict[str, list[Example]]]]:
    """Explain examples of each data set with labels: what each model predicted in its accuracy run, and why.

    Args:
        models: The model alone, or the baseline and the model.

    Yields:
        The data set's name, and the examples of each kind: "corrected" and "broken", or "wrong" and "right" for one
        model. One data set at a time, since pictures take room.
    """
    for position, result in enumerate(models[-1].results):
        if result.top1 is None:
            continue
        frames = pair_predictions(
            result.dataset, *(read_predictions(model.folder, result.dataset) for model in models)
        )
        yield (
            result.dataset,
            {
                kind: _explained(models, position, [frame.loc[image_ids] for frame in frames]) if image_ids else []
                for kind, image_ids in choose_kinds(frames, NUM_EXAMPLES).items()
            },
        )


def _explained(models: Sequence[EvaluatedModel], position: int, frames: Sequence[pd.DataFrame]) -> list[Example]:
    """The images of the frames' rows, which are the same, on the data set at a position."""
    image_ids = frames[-1].index.tolist()
    answers = []  # for each model, its answer to each image
    for model, frame in zip(models, frames, strict=True):
        protocol = model.results[position].protocol
        images = (
            model.data[position]
            .named(image_ids)
            .images(model.checkpoint, protocol["preprocessing"], protocol["crop_border"])
        )
        pixel_values = torch.stack([images[row]["pixel_values"] for row in range(len(images))])
        predicted = [int(indices[0]) for indices in frame["top5_indices"]]
        method = protocol.get("relevance_method", "gae")
        explained = explain_batch(model.checkpoint.model, pixel_values, predicted, method)
        columns = (
            explained.predictions,
            [float(probabilities[0]) for probabilities in frame["top5_probabilities"]],
            outcomes(frame)["top1"].tolist(),
            denormalize(pixel_values, images.image_processor),
            explained.maps,
        )
        answers.append([Answer(model.title, *row) for row in zip(*columns, strict=True)])
    return [Example(*row) for row in zip(image_ids, frames[-1]["class_name"], zip(*answers, strict=True), strict=True)]


def denormalize(pixel_values: torch.Tensor, image_processor) -> np.ndarray:
    """Turn (batch, 3, height, width) model input back into (batch, height, width, 3) colours in [0, 1]."""
    mean, std = normalization(image_processor)
    return (pixel_values.float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
