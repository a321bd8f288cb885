"""Intervals and tests: for one accuracy, and for the difference between two models on the same images.

Where images show the same object several times they tell less than as many objects would. There `groups`, (images,),
says which of them belong together: intervals come from resampling whole groups, p-values from exchanging them whole.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats


CONFIDENCE = 0.95
PERMUTATIONS = 10_000
_RESAMPLES_AT_ONCE = 100  # ImageNet-C has 50,000 groups, too many for all resamples at once


def object_groups(frame: pd.DataFrame) -> np.ndarray | None:
    """The groups of the rows of a data set that shows objects several times: its column `object`.

    Returns:
        (rows,) int64; an image whose object is not known is a group of its own. None where there is no such column,
        where each object is shown once, and where all rows show one object: these are statistics by image.
    """
    if "object" not in frame:
        return None
    groups, names = pd.factorize(frame["object"])
    unknown = groups < 0
    groups[unknown] = len(names) + np.arange(unknown.sum())
    return groups if 1 < len(names) + unknown.sum() < len(groups) else None


def accuracy_interval(correct: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """The 95 % interval of an accuracy: Wilson's score interval, or the group bootstrap.

    Where all images are right, or all wrong, resampling tells nothing: then each group counts as one image.

    Args:
        correct: (images,) bool.
        groups: (images,), what is resampled whole.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    if groups is not None:
        if len(np.unique(correct)) > 1:
            return group_bootstrap_interval(np.mean, correct, groups)
        correct = correct[: len(np.unique(groups))]
    test = stats.binomtest(int(np.sum(correct)), len(correct))
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """The 95 % interval of the difference of two accuracies: Tango's score interval, or the group bootstrap.

    Where all images changed alike, or none did, resampling tells nothing: then each group counts as one image.

    Args:
        before: (images,) bool, whether the first model was right.
        after: (images,) bool, whether the second model was right about the same images.
        groups: (images,), what is resampled whole.

    Returns:
        Lower and upper bound of accuracy after minus accuracy before, in [-1, 1].
    """
    if groups is not None:
        change = after.astype(int) - before.astype(int)
        if len(np.unique(change)) > 1:
            return group_bootstrap_interval(np.mean, change, groups)
        before, after = (correct[: len(np.unique(groups))] for correct in (before, after))
    return score_interval(before, after)


def score_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Tango's score 95 % interval of the difference of two accuracies on the same images, arguments as above.

    It holds the differences that a score test does not reject (Tango, Statistics in Medicine 17, 1998), so it excludes
    0 exactly where McNemar's test without continuity correction rejects. Where no image changed it still has a width.
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
    statistic: Callable[[np.ndarray], float],
    values: np.ndarray,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """The bootstrap 95 % interval (percentiles) of any figure of a data set; paired where the rows hold both models.

    Args:
        statistic: From (images, ...) to the figure.
        values: (images, ...), what is resampled along the first axis.
        groups: (images,), what is resampled whole, see `group_bootstrap_interval`.
        seed: Of the resampling.
        resamples: Number of resamples.
    """
    if groups is not None:
        return group_bootstrap_interval(statistic, values, groups, seed)
    rng = np.random.default_rng(seed)
    indices = (rng.integers(len(values), size=len(values)) for _ in range(resamples))
    figures = np.array([statistic(values[index]) for index in indices])
    return _percentiles(figures, (1 - CONFIDENCE) / 2)


def group_bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    values: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """The 95 % interval of a figure from resampling whole groups, wherever their images lie.

    The percentiles lie further out than 2.5 and 97.5, as far as Student's t does for so few groups (the expanded
    percentile interval: Hesterberg, The American Statistician 69, 2015); plain ones are too narrow below about 30.

    Args:
        statistic: From (images, ...) to the figure, which is a function of the mean over the images: it is given that
            mean alone, (1, ...), so that a resample costs no more than the sums of its groups.
        values: (images, ...).
        groups: (images,), two or more different ones.
        seed: Of the resampling.
        resamples: Number of resamples.
    """
    sums, sizes = _group_sums(values, groups), _group_sums(np.ones(len(values)), groups)
    count = len(sizes)
    rng, means = np.random.default_rng(seed), []
    for first in range(0, resamples, _RESAMPLES_AT_ONCE):
        block = min(_RESAMPLES_AT_ONCE, resamples - first)
        # How often each group is drawn: (block, groups).
        times = rng.multinomial(count, np.full(count, 1 / count), size=block)
        means.append((np.tensordot(times, sums, axes=1).T / (times @ sizes)).T)
    means = np.concatenate(means)  # (resamples, ...)
    # The mean of a mean is itself.
    figures = means if statistic is np.mean and values.ndim == 1 else [statistic(mean[None]) for mean in means]
    return _percentiles(np.array(figures), _expanded_tail(count))


def corrected_bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    count: int,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> tuple[float, float]:
    """The bootstrap 95 % interval of a figure that noise makes larger, or smaller, in few images.

    A calibration error is an example: noise adds up in it, and a resample has more of it than the sample, so that all
    percentiles may lie above the truth. Here they are centred on the figure first. Then the interval is widened, on
    the truth's side, by the bias that the figure itself may have: where it is nothing but noise, resamples have
    sqrt(2) times as much, so the bias is at most what they add, divided by sqrt(2) - 1.

    Args:
        statistic: From (images,) weights, which say how often each image was drawn, to the figure.
        count: Number of images.
        groups: (images,), what is resampled whole, with the wider tails of `group_bootstrap_interval`.
        seed: Of the resampling.
        resamples: Number of resamples.
    """
    units = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_units, rng = units.max() + 1, np.random.default_rng(seed)
    draws = (rng.integers(num_units, size=num_units) for _ in range(resamples))
    figures = np.array([statistic(np.bincount(draw, minlength=num_units)[units].astype(float)) for draw in draws])
    figures = figures[np.isfinite(figures)]  # not every resample needs to have what the figure is about
    added = figures.mean() - statistic(np.ones(count))
    tail = (1 - CONFIDENCE) / 2 if groups is None else _expanded_tail(num_units)
    low, high = _percentiles(figures - added, tail)
    bias = added / (np.sqrt(2) - 1)
    return float(min(low, low - bias)), float(max(high, high - bias))


def mcnemar_p(before: np.ndarray, after: np.ndarray) -> float:
    """The exact McNemar test: two-sided p for "as many images got better as got worse".

    Args:
        before: (images,) bool, whether the first model was right.
        after: (images,) bool, whether the second model was right about the same images.
    """
    better, worse = int(np.sum(after & ~before)), int(np.sum(before & ~after))
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def sign_flip_p(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> float:
    """The sign-flip permutation test of a paired difference: two-sided p for "groups got better as much as worse".

    Before and after are exchanged for whole groups; the statistic is the mean difference over the images. All
    exchanges are tried where these are at most `PERMUTATIONS` (13 groups that changed), else as many are drawn, always
    the same ones, and the observed one counts among them.

    Args:
        before: (images,) bool or numbers, of the first model.
        after: (images,), of the second model on the same images.
        groups: (images,), what is exchanged whole.
    """
    changes = _group_sums(after.astype(float) - before.astype(float), groups)
    changes = changes[changes != 0]  # the others stay what they are, whichever way round
    if len(changes) < 2:  # alone, a change is as large either way round
        return 1.0
    test = stats.permutation_test(
        (changes,), np.sum, permutation_type="samples", n_resamples=PERMUTATIONS, batch=1000, rng=0
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment for several tests; at most 1, and in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return adjusted.tolist()


def _group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups, ...) float64, the sum over the images of each."""
    names, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def _expanded_tail(count: int) -> float:
    """How much of the resamples of so few groups lies beyond each bound."""
    quantile = np.sqrt(count / (count - 1)) * stats.t.ppf((1 - CONFIDENCE) / 2, count - 1)
    return stats.norm.cdf(quantile)


def _percentiles(figures: np.ndarray, tail: float) -> tuple[float, float]:
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)
