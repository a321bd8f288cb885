"""Intervals and tests: for one accuracy, and for the difference between two models on the same images."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, stats


CONFIDENCE = 0.95


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


def difference_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Tango's score 95 % interval of the difference of two accuracies on the same images.

    It holds the differences that a score test does not reject (Tango, Statistics in Medicine 17, 1998), so it excludes
    0 exactly where McNemar's test without continuity correction rejects. Where no image changed it still has a width.

    Args:
        before: (images,) bool, whether the first model was right.
        after: (images,) bool, whether the second model was right about the same images.

    Returns:
        Lower and upper bound of accuracy after minus accuracy before, in [-1, 1].
    """
    n = len(before)
    better, worse = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)

    def excess(difference: float) -> float:
        """How far the squared score of a difference is above the test's threshold, times its variance."""
        spread = difference * (1 - difference)
        b = (2 * n - better + worse) * difference - better - worse
        # The likeliest share of images that got worse, given the difference.
        share_worse = (np.sqrt(max(b**2 + 8 * n * worse * spread, 0)) - b) / (4 * n)
        return (better - worse - n * difference) ** 2 - z**2 * n * (2 * share_worse + spread)

    # The bounds are more than a tenth of an image away, where nothing changed too: there 0 itself is another root.
    observed, step = (better - worse) / n, 0.1 / n
    low = optimize.brentq(excess, -1, max(observed - step, -1))
    high = optimize.brentq(excess, min(observed + step, 1), 1)
    return float(low), float(high)


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
