"""Relevance maps against masks and against the model: the segmentation test, insertion and deletion.

The segmentation test is the paper's Tab. 3. How much of a map, and of attention rollout's, is inside the mask, and
insertion and deletion tell whether a map says what the model decides by.
"""

import contextlib

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.figures import SEGMENTATION_FIGURES
from hf_robustvit.evaluation.one_pass import SQUASHED, Batch, Columns, Measurement
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.evaluation.statistics import bootstrap_interval, object_groups
from hf_robustvit.lean.last_layer import last_layer_for_cls
from hf_robustvit.metrics import segmentation_scores
from hf_robustvit.metrics.relevance_segmentation import COUNTS, batch_counts
from hf_robustvit.models.families import head_reads, layers_of
from hf_robustvit.relevance import explain


# Every image costs twice as many forward passes, but for the empty images, which are one for each batch.
STEPS = 8
# Of masked images, that the model runs on: what it computes of a small model stays in a processor's cache.
IMAGES_AT_A_TIME = 32


def applies(run: BenchmarkRun) -> bool:
    """Whether the data set gets the tests that need masks."""
    return run.data.tests_masks and run.data.has_masks


def measurement(run: BenchmarkRun) -> Measurement:
    """Explain the predicted class of every image, hold the map against the mask, and take it at its word.

    Columns: `relevance_in_mask`, see there, and `relevance_in_mask_rollout`, the same of attention rollout's map;
    `rank_accuracy`; `pointing_game`; `insertion` and `deletion`, in [0, 1], see `perturbation_areas`; the seven counts
    of `segmentation_counts`.
    """
    model = run.checkpoint.model

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        pixels, mask = batch.inputs[SQUASHED]["pixel_values"], batch.inputs[SQUASHED]["mask"]
        explanation = batch.explanation
        maps = explanation.relevance[:, 0]  # (batch, height, width)
        with last_layer_for_cls(layers_of(model)[-1]) if head_reads(model) == "cls" else contextlib.nullcontext():
            insertion, deletion = perturbation_areas(model, pixels, explanation.patch_relevance, explanation.target)
        rollout = explain(model, pixels, method="rollout").relevance[:, 0]
        return {
            "relevance_in_mask": relevance_in_mask(maps, mask),
            "relevance_in_mask_rollout": relevance_in_mask(rollout, mask),
            "rank_accuracy": rank_accuracy(maps, mask),
            "pointing_game": pointing_game(maps, mask),
            "insertion": insertion,
            "deletion": deletion,
            **dict(zip(COUNTS, batch_counts(maps, mask).unbind(dim=1), strict=True)),
        }

    images = run.images(squashed=True, with_masks=True)

    def table(columns: Columns, index: np.ndarray) -> Columns:
        broken = index[np.isnan(columns["average_precision"])]
        if len(broken):
            raise UserError(
                f"{run.data.name}: the relevance map of image {images.image_ids[broken[0]]!r} holds NaN or infinite "
                "values; check the model's weights."
            )
        return columns

    return Measurement({SQUASHED: images}, step, table)


def relevance_in_mask(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The share of a map's mass inside the mask: relevance mass accuracy (Arras et al. 2022, Eq. 1).

    Args:
        maps: (batch, height, width), not negative.
        masks: (batch, height, width) in {0, 1, -1 ignored}; ignored pixels are left out.

    Returns:
        (batch,) in [0, 1]; 0 for a map of zeros.
    """
    in_mask, total = ((maps * part).sum(dim=(1, 2)) for part in (masks == 1, masks >= 0))
    return in_mask / total.clamp(min=1e-12)


def rank_accuracy(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The share of the K most relevant pixels that are in a mask of K pixels (Arras, Osman and Samek, "CLEVR-XAI",
    Information Fusion 2022, Eq. 2); arguments and return value as for `relevance_in_mask`, 0 for an empty mask.
    """
    order = maps.masked_fill(masks < 0, -1).flatten(1).argsort(dim=1, descending=True, stable=True)
    in_mask = (masks == 1).flatten(1)
    size = in_mask.sum(dim=1, keepdim=True)
    is_top = torch.arange(order.shape[1], device=order.device) < size  # (batch, pixels), in the map's order
    return (in_mask.gather(1, order) & is_top).sum(dim=1) / size[:, 0].clamp(min=1)


def pointing_game(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Whether a pixel with the largest relevance is in the mask (Zhang et al., IJCV 2018, without their tolerance of
    15 pixels); arguments as for `relevance_in_mask`, and the result is 0 or 1, 0 for a map of zeros.
    """
    maps = maps.masked_fill(masks < 0, 0)
    is_largest = (maps == maps.amax(dim=(1, 2), keepdim=True)) & (maps > 0)
    return (is_largest & (masks == 1)).any(dim=2).any(dim=1).float()


def map_figures(frame: pd.DataFrame) -> dict[str, float | list[float]]:
    """The figures of the segmentation test (percent), and their (group) bootstrap intervals."""
    counts, groups = frame[list(COUNTS)].to_numpy(), object_groups(frame)
    scores = segmentation_scores(counts)
    figures = {}
    for name in SEGMENTATION_FIGURES:
        figures[name] = 100 * scores[name]
        low, high = bootstrap_interval(lambda sample, name=name: segmentation_scores(sample)[name], counts, groups)
        figures[f"{name}_ci95"] = [100 * low, 100 * high]
    return figures


@torch.no_grad()
def perturbation_areas(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    patch_relevance: torch.Tensor,
    target: torch.Tensor,
    steps: int = STEPS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The areas under the insertion and deletion curves (Petsiuk et al. 2018) over the model's own patches.

    The most relevant patches come first: they are put on an empty image (insertion), or taken from the whole one
    (deletion). Empty is 0 after normalisation, the mean colour of the model's preprocessing. Where the map is right,
    the probability of the class rises early under insertion, and falls early under deletion.

    Args:
        model: The classifier.
        pixel_values: (batch, 3, height, width), normalised.
        patch_relevance: (batch, rows, columns), what orders the patches; equal ones in reading order.
        target: (batch,) int64, whose probability is followed.
        steps: Number of steps of (almost) equally many patches, at most as many as there are patches.

    Returns:
        Insertion and deletion, (batch,) float32 each in [0, 1]: the mean height of the curve, by the trapezoid rule.
    """
    num_patches = patch_relevance[0].numel()
    steps = min(steps, num_patches)
    # The place of each patch in the order: 0 is the most relevant one.
    order = patch_relevance.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = order.argsort(dim=1).view(patch_relevance.shape)  # (batch, rows, columns)

    def probability(pixels: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([model(pixel_values=part).logits for part in pixels.split(IMAGES_AT_A_TIME)]).float()
        return logits.softmax(dim=1).expand(len(target), -1).gather(1, target[:, None])[:, 0]

    def shown(is_visible: torch.Tensor) -> torch.Tensor:
        scale = [side // patches for side, patches in zip(pixel_values.shape[-2:], is_visible.shape[-2:], strict=True)]
        pixels = is_visible.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)[:, None]
        return probability(pixel_values * pixels)

    counts = [round(step * num_patches / steps) for step in range(steps + 1)]
    shares = torch.tensor(counts, device=pixel_values.device) / num_patches
    # All empty images are one.
    empty, whole = probability(torch.zeros_like(pixel_values[:1])), probability(pixel_values)
    inserted = [empty, *(shown(places < count) for count in counts[1:-1]), whole]
    deleted = [whole, *(shown(places >= count) for count in counts[1:-1]), empty]
    insertion, deletion = (torch.trapezoid(torch.stack(curve), shares, dim=0) for curve in (inserted, deleted))
    return insertion, deletion
