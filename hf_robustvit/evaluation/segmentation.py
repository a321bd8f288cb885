"""The segmentation test (paper Tab. 3): the relevance map of the predicted class against the foreground mask."""

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.loop import LoopOptions, run_over_images
from hf_robustvit.evaluation.statistics import bootstrap_interval
from hf_robustvit.metrics import segmentation_counts, segmentation_scores
from hf_robustvit.metrics.relevance_segmentation import COUNTS
from hf_robustvit.relevance import explain


def count_segmentation(
    checkpoint: Checkpoint,
    images: BenchmarkImages,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
) -> pd.DataFrame:
    """Explain the predicted class of every image and count where the map meets the mask.

    Args:
        checkpoint: The model, in an attention implementation that gives attentions.
        images: The benchmark's images with their masks.
        options: How images are fed, and the precision.
        accelerator: The processes and the device.
        description: What the progress bar says.

    Returns:
        `image_id` and the seven counts of `segmentation_counts`, one row for each readable image.

    Raises:
        UserError: An image or mask cannot be read, and `options.skip_unreadable` is off.
    """

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        maps = explain(checkpoint.model, batch["pixel_values"]).relevance[:, 0]  # (batch, height, width)
        pairs = zip(maps.cpu(), batch["mask"].cpu(), strict=True)
        counts = np.stack([segmentation_counts(relevance, mask) for relevance, mask in pairs])
        return {"counts": torch.from_numpy(counts).to(maps.device)}  # (batch, 7)

    columns = run_over_images(step, images, options, accelerator, description)
    return pd.DataFrame({"image_id": columns["image_id"]} | dict(zip(COUNTS, columns["counts"].T, strict=True)))


def segmentation_figures(frame: pd.DataFrame) -> dict:
    """A result's segmentation figures (percent) and their bootstrap intervals, from `count_segmentation`'s rows."""
    counts = frame[list(COUNTS)].to_numpy()
    figures = {name: 100 * value for name, value in segmentation_scores(counts).items()}
    for name in list(figures):
        low, high = bootstrap_interval(lambda sample, name=name: segmentation_scores(sample)[name], counts)
        figures[f"{name}_ci95"] = [100 * low, 100 * high]
    return figures
