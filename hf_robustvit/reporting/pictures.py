"""Pictures of what models look at: image, mask, and each model's relevance map over the image."""

import itertools
import textwrap
from pathlib import Path

import numpy as np

from hf_robustvit.evaluation.pictures import ExplainedImages


def overlay_grid(shown: ExplainedImages, *paths: str | Path) -> None:
    """Draw one row for each image: the image, its mask, and each model's map with its prediction.

    A prediction is written with a tick where it is the label and a cross where it is another.

    Args:
        shown: The images.
        paths: PNG or PDF files to write.
    """
    from matplotlib.figure import Figure  # takes a second to import

    from hf_robustvit.fonts import write_figure

    titles = ["image", *(["mask"] if shown.masks is not None else []), *shown.explained]
    rows = []  # of (picture, caption)
    for row, (image, label) in enumerate(zip(shown.images, shown.labels, strict=True)):
        pictures = [(image, label)]
        if shown.masks is not None:
            mask = shown.masks[row]
            pictures.append((np.repeat(mask[..., None], 3, axis=-1), f"{mask.mean():.0%} foreground"))
        for batch in shown.explained.values():
            is_right = batch.predictions[row] == label if batch.is_right is None else batch.is_right[row]
            verdict = "\N{CHECK MARK} " if is_right else "\N{MULTIPLICATION X} "
            caption = f"{verdict if label else ''}{batch.predictions[row]} {batch.confidences[row]:.0%}"
            seen = image if batch.images is None else batch.images[row]
            pictures.append((heat_overlay(seen, batch.maps[row]), caption))
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
    for path in map(Path, paths):
        write_figure(figure, path, dpi=100)


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
    return without_formulas("\n".join(textwrap.wrap(text, width)))


def without_formulas(text: str) -> str:
    """A name as matplotlib must be given it, which would read a formula between two dollar signs."""
    return text.replace("$", r"\$")
