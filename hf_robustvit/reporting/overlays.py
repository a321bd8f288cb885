"""Pictures of what models look at: image, mask, and each model's relevance map over the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_robustvit.relevance import explain


@dataclass
class ExplainedBatch:
    """What one model says of a batch of images.

    Attributes:
        maps: (batch, height, width) float32 in [0, 1], relevance for the predicted class.
        predictions: The predicted classes' names.
        confidences: Their probabilities.
    """

    maps: np.ndarray
    predictions: list[str]
    confidences: list[float]


def explain_batch(model: PreTrainedModel, pixel_values: torch.Tensor) -> ExplainedBatch:
    """Explain each image's predicted class.

    Args:
        pixel_values: (batch, 3, height, width), normalised, on any device.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        explanation = explain(model, pixel_values.to(model.device))
    model.train(was_training)
    confidences = explanation.logits.float().softmax(dim=-1).amax(dim=-1)
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

    A prediction is written with a tick where it is the label and a cross where it is not.

    Args:
        path: PNG file to write.
        images: (batch, height, width, 3) in [0, 1].
        labels: The images' classes.
        explained: Column title -> what that model says of the same images.
        masks: (batch, height, width) in [0, 1], or `None` where there are none.
    """
    from matplotlib.figure import Figure  # takes a second to import

    titles = ["image", *(["mask"] if masks is not None else []), *explained]
    figure = Figure(figsize=(2.1 * len(titles), 2.35 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    for row, image in enumerate(images):
        pictures = [(image, labels[row])]
        if masks is not None:
            pictures.append((np.repeat(masks[row][..., None], 3, axis=-1), f"{masks[row].mean():.0%} foreground"))
        for batch in explained.values():
            verdict = "\N{CHECK MARK}" if batch.predictions[row] == labels[row] else "\N{MULTIPLICATION X}"
            caption = f"{verdict} {batch.predictions[row]} {batch.confidences[row]:.0%}"
            pictures.append((heat_overlay(image, batch.maps[row]), caption))
        for axis, (picture, caption) in zip(axes[row], pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xlabel(_plain(caption), fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(_plain(title), fontsize=11)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


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


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read a formula into a class name
