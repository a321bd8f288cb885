"""The segmentation test of relevance maps (paper Sec. 4, Tab. 3): does the map show the object?"""

import datasets
import evaluate
import numpy as np
import torch
import torch.nn.functional as F


#: What is counted in one image, in the order of the columns of `segmentation_counts`.
COUNTS = (
    "pixels",
    "pixels_correct",
    "background_intersection",
    "foreground_intersection",
    "background_union",
    "foreground_union",
    "average_precision",
)


class RelevanceSegmentation(evaluate.Metric):
    """Pixel accuracy, mean IoU and mean average precision of thresholded relevance maps.

    The protocol is that of the paper's code: each map is min-max normalised and cut at its mean (strictly above is
    foreground); pixel accuracy and the IoU of the two classes are accumulated over the data set; average precision is
    computed for each image over the scores [1 - R, R] of both classes and averaged over images.

    Every image is counted when it is added and only the seven counts are kept, so maps of any number and size fit.
    Several processes gather `segmentation_counts` and call `segmentation_scores` instead.

    Example:
        >>> metric = RelevanceSegmentation()
        >>> metric.compute(predictions=[[[0.1, 0.9]]], references=[[[0, 1]]])
        {'pixel_accuracy': 1.0, 'mean_iou': 1.0, 'mean_average_precision': 1.0}
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._counts: list[np.ndarray] = []

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Pixel accuracy, mean IoU and mean average precision of thresholded relevance maps.",
            citation="",
            inputs_description="\npredictions: relevance maps (H, W). references: masks (H, W) in {0, 1, -1 ignored}.",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Sequence(datasets.Value("float32"))),
                    "references": datasets.Sequence(datasets.Sequence(datasets.Value("int8"))),
                }
            ),
        )

    def add(self, *, prediction, reference) -> None:
        """Count one image: `prediction` a relevance map (H, W), `reference` its mask (H, W) in {0, 1, -1 ignored}."""
        self._counts.append(segmentation_counts(prediction, reference))

    def add_batch(self, *, predictions, references) -> None:
        """Count several images, each with its own size if need be; see `add`."""
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(self, *, predictions=None, references=None) -> dict[str, float]:
        """Score all images added since the last call, and those given here.

        Returns:
            `pixel_accuracy`, `mean_iou`, `mean_average_precision`, each in [0, 1].

        Raises:
            ValueError: No image was added, or a map and its mask differ in size.
        """
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        counts, self._counts = self._counts, []
        return segmentation_scores(counts)


def segmentation_counts(relevance, mask) -> np.ndarray:
    """Count one image.

    Args:
        relevance: (H, W) floats; min-max normalised here. A constant map says nothing: it becomes 0.5 everywhere, so
            all of it is background and both classes score alike.
        mask: (H, W) integers in {0, 1, -1 ignored}.

    Returns:
        (7,) float64: the values named in `COUNTS`.

    Raises:
        ValueError: The sizes differ, the map holds NaN or infinity, or the mask ignores every pixel.
    """
    relevance = torch.as_tensor(relevance).detach().to("cpu", torch.float32)
    mask = torch.as_tensor(mask).to("cpu", torch.int64)
    if relevance.shape != mask.shape or relevance.dim() != 2:
        raise ValueError(
            f"a relevance map and its mask must be (H, W) alike, got {tuple(relevance.shape)} and {tuple(mask.shape)}"
        )
    if not torch.isfinite(relevance).all():
        raise ValueError("the relevance map holds NaN or infinite values")
    labelled = mask >= 0
    if not labelled.any():
        raise ValueError("the mask ignores every pixel")

    return batch_counts(relevance[None], mask[None])[0].numpy()


def batch_counts(relevance: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Count several images where they are, without waiting for their device.

    Args:
        relevance: (batch, H, W) floats, as for `segmentation_counts`.
        masks: (batch, H, W) integers in {0, 1, -1 ignored}.

    Returns:
        (batch, 7) float64 as `segmentation_counts` gives them. Average precision is NaN where a map holds NaN or
        infinity, or a mask ignores every pixel.
    """
    if relevance.device.type == "mps":  # Apple's GPUs know no float64
        relevance, masks = relevance.cpu(), masks.cpu()
    relevance = relevance.float()
    lowest, highest = relevance.amin(dim=(1, 2), keepdim=True), relevance.amax(dim=(1, 2), keepdim=True)
    relevance = torch.where(highest > lowest, (relevance - lowest) / (highest - lowest), 0.5)
    predicted = relevance > relevance.mean(dim=(1, 2), keepdim=True)
    labelled, actual = masks >= 0, masks == 1
    counted = (
        labelled,
        predicted == actual,
        ~predicted & ~actual,
        predicted & actual,
        ~predicted | ~actual,
        predicted | actual,
    )
    counts = [(pixels & labelled).sum(dim=(1, 2)).double() for pixels in counted]
    precision = _average_precision(relevance, actual, labelled)
    is_finite = (lowest - highest).isfinite()[:, 0, 0]
    return torch.stack([*counts, precision.where(is_finite, torch.nan)], dim=1)


def segmentation_scores(counts) -> dict[str, float]:
    """Scores of a data set from the counts of its images.

    Args:
        counts: (images, 7) as `segmentation_counts` gives them.

    Returns:
        `pixel_accuracy`, `mean_iou` (mean over background and foreground), `mean_average_precision`, each in [0, 1].

    Raises:
        ValueError: There is no image.
    """
    if len(counts) == 0:
        raise ValueError("no image was added to the segmentation test")
    total = dict(zip(COUNTS, np.sum(counts, axis=0), strict=True))
    # A class that is neither present nor predicted anywhere counts as IoU 0, as in the paper's code.
    background_iou = total["background_intersection"] / max(total["background_union"], 1)
    foreground_iou = total["foreground_intersection"] / max(total["foreground_union"], 1)
    return {
        "pixel_accuracy": float(total["pixels_correct"] / total["pixels"]),
        "mean_iou": float((background_iou + foreground_iou) / 2),
        "mean_average_precision": float(total["average_precision"] / len(counts)),
    }


def _average_precision(relevance: torch.Tensor, actual: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """Average precision over both classes' pixels at once: 1 - R scores the background, R the foreground.

    The recall that each score gains, times the precision down to that score, as scikit-learn's.

    Args:
        relevance: (batch, H, W) in [0, 1].
        actual, labelled: (batch, H, W) bool.

    Returns:
        (batch,) float64.
    """
    scores, order = torch.cat([1 - relevance, relevance], dim=1).flatten(1).sort(dim=1, descending=True)
    hits, pixels = (
        torch.cat(halves, dim=1).flatten(1).gather(1, order).cumsum(dim=1)
        for halves in ((~actual & labelled, actual & labelled), (labelled, labelled))
    )
    # Equal scores are reached together: at the last of them.
    is_last = F.pad(scores[:, 1:] != scores[:, :-1], (0, 1), value=True)
    reached = (hits * is_last).cummax(dim=1).values
    gained = reached.diff(dim=1, prepend=torch.zeros_like(reached[:, :1]))
    precision = hits.double() / pixels.clamp(min=1)
    return (gained.double() / hits[:, -1:] * precision).sum(dim=1)
