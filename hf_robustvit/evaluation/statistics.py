"""Intervals and tests: for one accuracy, and for the difference between two models on the same images."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats


CONFIDENCE = 0.95
RESAMPLES = 10_000


def accuracy_interval(correct: np.ndarray) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of an accuracy.

    Args:
        correct: (images,) bool.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    test = stats.binomtest(int(np.sum(correct)), len(correct))
    interval = test.proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def difference_interval(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The paired-bootstrap 95 % interval (percentiles) of the difference of two accuracies.

    An image can only have got better, worse, or stayed as it was, so resampling images is drawing these three numbers.

    Args:
        before: (images,) bool, whether the first model was right.
        after: (images,) bool, whether the second model was right about the same images.
        seed: Of the resampling.

    Returns:
        Lower and upper bound of accuracy after minus accuracy before, in [-1, 1].
    """
    n = len(before)
    better, worse = np.sum(after & ~before), np.sum(before & ~after)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, np.array([better, worse, n - better - worse]) / n, size=RESAMPLES)  # (resamples, 3)
    return _percentiles((draws[:, 0] - draws[:, 1]) / n)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], values: np.ndarray, seed: int = 0, resamples: int = 1000
) -> tuple[float, float]:
    """The bootstrap 95 % interval (percentiles) of any figure of a data set; paired where the rows hold both models.

    Args:
        statistic: From (images, ...) to the figure.
        values: (images, ...), what is resampled along the first axis.
        seed: Of the resampling.
        resamples: Number of resamples.
    """
    rng = np.random.default_rng(seed)
    indices = (rng.integers(len(values), size=len(values)) for _ in range(resamples))
    return _percentiles(np.array([statistic(values[index]) for index in indices]))


def mcnemar_p(before: np.ndarray, after: np.ndarray) -> float:
    """The exact McNemar test: two-sided p for "as many images got better as got worse".

    Args:
        before: (images,) bool, whether the first model was right.
        after: (images,) bool, whether the second model was right about the same images.
    """
    better, worse = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several tests; at most 1, and in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return adjusted.tolist()


def _percentiles(figures: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(figures, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
