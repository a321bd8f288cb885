"""Whether a relevance map tells what the model decides by: relevance inside the mask, insertion and deletion."""

import pandas as pd
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.images import BenchmarkImages
from hf_robustvit.evaluation.loop import LoopOptions, run_over_images
from hf_robustvit.relevance import explain


# Every image costs twice as many forward passes.
STEPS = 8
FAITHFULNESS_FIGURES = ("relevance_in_mask", "insertion", "deletion")


def measure_faithfulness(
    checkpoint: Checkpoint,
    images: BenchmarkImages,
    options: LoopOptions,
    accelerator: Accelerator,
    description: str,
) -> pd.DataFrame:
    """Explain the predicted class of every image, and take the map at its word.

    Args:
        checkpoint: The model, in an attention implementation that gives attentions.
        images: The benchmark's images with their masks.
        options: How images are fed, and the precision.
        accelerator: The processes and the device.
        description: What the progress bar says.

    Returns:
        One row for each readable image, shares in [0, 1]. Columns: `image_id`; `relevance_in_mask`, the share of the
        map's mass inside the mask (0 for a constant map), ignored pixels left out; `insertion` and `deletion`, see
        `perturbation_areas`.

    Raises:
        UserError: An image or mask cannot be read, and `options.skip_unreadable` is off.
    """

    def step(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        explanation = explain(checkpoint.model, batch["pixel_values"])
        maps = explanation.relevance[:, 0]  # (batch, height, width)
        in_mask, total = ((maps * part).sum(dim=(1, 2)) for part in (batch["mask"] == 1, batch["mask"] >= 0))
        insertion, deletion = perturbation_areas(
            checkpoint.model, batch["pixel_values"], explanation.patch_relevance, explanation.target
        )
        return {"relevance_in_mask": in_mask / total.clamp(min=1e-12), "insertion": insertion, "deletion": deletion}

    columns = run_over_images(step, images, options, accelerator, description)
    return pd.DataFrame({name: columns[name] for name in ("image_id", *FAITHFULNESS_FIGURES)})


def faithfulness_figures(frame: pd.DataFrame) -> dict[str, float]:
    """A result's means over images (percent), from `measure_faithfulness`'s rows."""
    return {name: 100 * float(frame[name].mean()) for name in FAITHFULNESS_FIGURES}


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

    def probability(is_visible: torch.Tensor) -> torch.Tensor:
        scale = [side // patches for side, patches in zip(pixel_values.shape[-2:], is_visible.shape[-2:], strict=True)]
        pixels = is_visible.repeat_interleave(scale[0], 1).repeat_interleave(scale[1], 2)[:, None]
        logits = model(pixel_values=pixel_values * pixels).logits.float()  # (batch, classes)
        return logits.softmax(dim=1).gather(1, target[:, None])[:, 0]

    counts = [round(step * num_patches / steps) for step in range(steps + 1)]
    empty, whole = probability(places < 0), probability(places >= 0)
    inserted = [empty, *(probability(places < count) for count in counts[1:-1]), whole]
    deleted = [whole, *(probability(places >= count) for count in counts[1:-1]), empty]
    shares = torch.tensor(counts, device=empty.device) / num_patches
    insertion, deletion = (torch.trapezoid(torch.stack(curve), shares, dim=0) for curve in (inserted, deleted))
    return insertion, deletion
