"""Whether a model is right as often as it says: the reliability diagram and its summary, the calibration error."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes


NUM_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """A model's confidence in its predictions, held against how often they are right.

    Attributes:
        error: Expected calibration error in [0, 1]: the mean of |accuracy - confidence| over the bins, weighted by
            their images (Guo et al., ICML 2017).
        counts: (bins,) images in each bin, the bins splitting [0, 1] equally.
        confidence: (bins,) mean confidence of each bin, nan where it is empty.
        accuracy: (bins,) share of right predictions, nan where it is empty.
    """

    error: float
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibrate(confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> Calibration:
    """Sort predictions into bins of equal width by their confidence; a bin holds its upper edge.

    Args:
        confidence: (images,) in [0, 1], the probability of the predicted class.
        correct: (images,) bool, whether it was right.
        num_bins: Number of bins.
    """
    bins = bins_of(confidence, num_bins)
    counts = np.bincount(bins, minlength=num_bins)
    sums = (np.bincount(bins, weights=values, minlength=num_bins) for values in (confidence, correct))
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (total / counts for total in sums)
    error = np.nansum(counts * np.abs(accuracy - mean_confidence)) / len(confidence)
    return Calibration(float(error), counts, mean_confidence, accuracy)


def bins_of(confidence: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """(images,) int64, the bin of each."""
    return np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)


def predictions_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The confidence and the correctness of the rows of a result, as `calibrate` takes them."""
    confidence = np.stack(frame["top5_probabilities"])[:, 0].astype(float)
    return np.minimum(confidence, 1), outcomes(frame)["top1"].to_numpy()
