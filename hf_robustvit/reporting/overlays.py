"""Pictures of what models look at: image, mask, and each model's relevance map over the image."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_robustvit.data.transforms import normalization
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import (
    BenchmarkImages,
    Preprocessing,
    benchmark_image_processor,
    segmentation_image_processor,
)
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.relevance import explain


# Enough to see what a model looks at, few enough for one page.
NUM_SHOWN = 8


@dataclass
class ExplainedBatch:
    """What one model says of a batch of images.

    Attributes:
        maps: (batch, height, width) float32 in [0, 1], relevance for the explained class.
        predictions: The explained classes' names: the predicted ones, unless others were asked for.
        confidences: Their probabilities.
    """

    maps: np.ndarray
    predictions: list[str]
    confidences: list[float]


def explain_batch(
    model: PreTrainedModel, pixel_values: torch.Tensor, target: torch.Tensor | None = None
) -> ExplainedBatch:
    """Explain one class of each image.

    Args:
        model: The classifier; it is in its old mode afterwards.
        pixel_values: (batch, 3, height, width), normalised, on any device.
        target: (batch,) int64, the classes that are explained; the predicted ones if `None`.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        explanation = explain(
            model, pixel_values.to(model.device), None if target is None else target.to(model.device)
        )
    model.train(was_training)
    probabilities = explanation.logits.float().softmax(dim=-1)  # (batch, classes)
    confidences = probabilities.gather(1, explanation.target[:, None])[:, 0]
    return ExplainedBatch(
        maps=explanation.relevance[:, 0].float().cpu().numpy(),
        predictions=[model.config.id2label[index] for index in explanation.target.tolist()],
        confidences=confidences.tolist(),
    )


def denormalize(pixel_values: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> np.ndarray:
    """Turn (batch, 3, height, width) model input back into (batch, height, width, 3) colours in [0, 1].

    Args:
        pixel_values: What `EvalTransform` gave.
        mean: (3, 1, 1), that transform's.
        std: (3, 1, 1), that transform's.
    """
    return (pixel_values.float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def overlay_grid(
    path: str | Path,
    images: np.ndarray,
    labels: Sequence[str],
    explained: Mapping[str, ExplainedBatch],
    masks: np.ndarray | None = None,
) -> None:
    """Draw one row for each image: the image, its mask, and each model's map with its prediction.

    A prediction is written with a tick where it is the label and a cross where it is another.

    Args:
        path: PNG file to write.
        images: (batch, height, width, 3) in [0, 1].
        labels: The images' classes, empty where there are none.
        explained: Column title -> what that model says of the same images.
        masks: (batch, height, width) in [0, 1], or `None` where there are none.
    """
    from matplotlib.figure import Figure  # takes a second to import

    titles = ["image", *(["mask"] if masks is not None else []), *explained]
    rows = []  # of (picture, caption)
    for row, image in enumerate(images):
        pictures = [(image, labels[row])]
        if masks is not None:
            pictures.append((np.repeat(masks[row][..., None], 3, axis=-1), f"{masks[row].mean():.0%} foreground"))
        for batch in explained.values():
            verdict = "\N{CHECK MARK} " if batch.predictions[row] == labels[row] else "\N{MULTIPLICATION X} "
            caption = f"{verdict if labels[row] else ''}{batch.predictions[row]} {batch.confidences[row]:.0%}"
            pictures.append((heat_overlay(image, batch.maps[row]), caption))
        rows.append([(picture, wrapped(caption)) for picture, caption in pictures])
    height = sum(2.2 + 0.15 * max(1 + caption.count("\n") for _, caption in pictures) for pictures in rows)
    figure = Figure(figsize=(2.1 * len(titles), height + 0.35), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axis, (picture, caption) in zip(axes.flat, itertools.chain(*rows), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_xlabel(caption, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(wrapped(title, 20), fontsize=11)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def pair_overlays(
    path: str | Path,
    batch: Mapping[str, Any],
    id2label: Mapping[int, str],
    explained: Mapping[str, ExplainedBatch],
    mean: torch.Tensor,
    std: torch.Tensor,
) -> None:
    """Draw a batch of image-mask pairs and each model's maps.

    Args:
        path: PNG file to write.
        batch: As `collate_pairs` gives it.
        id2label: The models' class names.
        explained: Column title -> what that model says of the batch.
        mean: (3, 1, 1), that of the `EvalTransform` the batch went through.
        std: (3, 1, 1), the same.
    """
    labels = [id2label[label] for label in batch["labels"].tolist()]
    masks = batch["masks"][:, 0].clamp(min=0).numpy()  # (batch, height, width)
    overlay_grid(path, denormalize(batch["pixel_values"], mean, std), labels, explained, masks)


def benchmark_overlays(
    path: str | Path,
    data: BenchmarkData,
    checkpoints: Mapping[str, Checkpoint],
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
) -> None:
    """Draw the same images of a benchmark for every model: those that part its rows, sorted by class, equally.

    Args:
        path: PNG file to write.
        data: The benchmark.
        checkpoints, preprocessing, crop_border: As for `image_overlays`.
    """
    labels = data.rows["label"][:] if data.label_space else [0] * len(data.rows)
    by_class = np.argsort(labels, kind="stable")
    rows = by_class[np.linspace(0, len(by_class) - 1, min(NUM_SHOWN, len(by_class)), dtype=int)]
    image_overlays(path, replace(data, rows=data.rows.select(rows)), checkpoints, preprocessing, crop_border)


def image_overlays(
    path: str | Path,
    data: BenchmarkData,
    checkpoints: Mapping[str, Checkpoint],
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
) -> None:
    """Draw all images of a data set for every model; nothing where none can be read.

    Args:
        path: PNG or PDF file to write.
        data: The images. Where they have masks these are shown, and the image is squashed to the input size instead
            of cropped, as in the segmentation test.
        checkpoints: Column title -> model.
        preprocessing: As for `evaluate_benchmark`.
        crop_border: As for `evaluate_benchmark`.
    """
    rows = data.rows
    has_masks = "mask" in rows.column_names
    processor_for = segmentation_image_processor if has_masks else benchmark_image_processor
    explained = {}
    for title, checkpoint in checkpoints.items():
        processor = processor_for(preprocessing, checkpoint.image_processor, checkpoint.model.config)
        own = {"turned": data.is_own_folder, "reading": data.reading}
        images = BenchmarkImages(rows, processor, crop_border, with_masks=has_masks, **own)
        shown = [item for item in (images[row] for row in range(len(rows))) if item["readable"]]
        if not shown:
            return
        pixel_values = torch.stack([item["pixel_values"] for item in shown])
        explained[title] = explain_batch(checkpoint.model, pixel_values)
    captions = [""] * len(rows)
    if data.label_space:
        names = checkpoint.model.config.id2label
        captions = [names[data.label_space.first_indices[label]] for label in rows["label"]]
    overlay_grid(
        path,
        denormalize(pixel_values, *normalization(processor)),
        [captions[item["index"]] for item in shown],
        explained,
        np.stack([item["mask"] for item in shown]).clip(min=0).astype(np.float32) if has_masks else None,
    )


def example_overlays(
    data: BenchmarkData,
    checkpoint: Checkpoint,
    image_ids: Sequence[str],
    targets: Sequence[int],
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen images of a benchmark as a model saw them in its accuracy run, without and with its relevance maps.

    Args:
        data: The benchmark.
        checkpoint: The model.
        image_ids: The images, by `choose_examples`; not empty, all readable.
        targets: The class of the model to explain for each.
        preprocessing: As for `evaluate_benchmark`.
        crop_border: As for `evaluate_benchmark`.

    Returns:
        The images and the overlays, each (images, height, width, 3) in [0, 1].
    """
    positions = {image_id: position for position, image_id in enumerate(data.rows["image_id"])}
    rows = data.rows.select([positions[image_id] for image_id in image_ids])
    processor = benchmark_image_processor(preprocessing, checkpoint.image_processor, checkpoint.model.config)
    shown = BenchmarkImages(rows, processor, crop_border, turned=data.is_own_folder)
    pixel_values = torch.stack([shown[row]["pixel_values"] for row in range(len(rows))])
    maps = explain_batch(checkpoint.model, pixel_values, torch.tensor(targets)).maps
    images = denormalize(pixel_values, *normalization(processor))
    return images, np.stack([heat_overlay(image, relevance) for image, relevance in zip(images, maps, strict=True)])


def heat_overlay(image: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Lay a map over a greyed image, brighter and yellower where the relevance is higher.

    Args:
        image: (height, width, 3) in [0, 1].
        relevance: (height, width) in [0, 1].
    """
    from matplotlib import colormaps

    grey = image.mean(axis=-1, keepdims=True) * 0.8
    heat = colormaps["inferno"](relevance)[..., :3]
    return 0.45 * grey + 0.55 * heat


def wrapped(text: str, width: int = 22) -> str:
    """A caption in lines of `width` characters; one that is longer than two lines loses its middle."""
    if len(text) > 2 * width:
        text = f"{text[: width - 1]}…{text[1 - width :]}"
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")  # matplotlib would read a formula into a name
