"""Before and after on the same images: paired differences, their intervals, and tests over all data sets."""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.figures import SEGMENTATION_FIGURES, figures_of_kind
from hf_robustvit.evaluation.statistics import (
    bootstrap_interval,
    corrected_bootstrap_interval,
    difference_interval,
    holm,
    mcnemar_p,
    object_groups,
    sign_flip_p,
)
from hf_robustvit.evaluation.summaries import SUMMARIES, Summary
from hf_robustvit.metrics import segmentation_scores
from hf_robustvit.metrics.relevance_segmentation import COUNTS


SIGNIFICANCE = 0.05
# Images or objects. With fewer no two-sided sign test rejects: 2 * 0.5**6 = 0.031, but 2 * 0.5**5 = 0.0625.
FEWEST_CHANGED = 6


@dataclass
class Difference:
    """How one figure changed on one data set, in percent and percentage points.

    Attributes:
        dataset: The data set.
        figure: One of `FIGURES`.
        classes: "all", or the "training" or "held-out" classes of the fine-tuned model.
        n: Number of images, each scored by both models.
        before, after: The figure of the baseline and of the model.
        difference: After minus before.
        interval95: Interval of the difference, see `interval`.
        p: Of `test`; None where images are not simply right or wrong: the segmentation test, faithfulness.
        p_holm: The same after Holm's adjustment over the data sets, within one figure and choice of classes.
        significant: `p_holm` is below 0.05; where there is none, see `is_significant`.
        interval: The paired "group bootstrap" of whole objects where images show the same object. Elsewhere Tango's
            paired "score" interval where images are simply right or wrong, and the paired "bootstrap" for other
            figures, and in all that earlier versions stored.
        test: What `p` is of: McNemar's exact test, or where images show the same object the sign-flip permutation
            test that keeps objects whole.
    """

    dataset: str
    figure: str
    classes: str
    n: int
    before: float
    after: float
    difference: float
    interval95: tuple[float, float]
    p: float | None = None
    p_holm: float | None = None
    significant: bool = False
    interval: Literal["score", "bootstrap", "group bootstrap"] = "bootstrap"
    test: Literal["mcnemar", "sign-flip"] | None = None


def pair_predictions(dataset: str, *frames: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of several models about the same images, in the same order.

    Args:
        dataset: The data set's name, for messages.
        frames: The predictions of each model, as `read_predictions` gives them; the last one's order counts.

    Raises:
        UserError: They have no image in common.
    """
    frames = [frame.set_index("image_id") for frame in frames]
    common = functools.reduce(
        lambda left, right: left.intersection(right, sort=False), [each.index for each in frames[::-1]]
    )
    if common.empty:
        raise UserError(f"--dataset {dataset}: baseline and model have no image in common.")
    return [frame.loc[common] for frame in frames]


def compare(dataset: str, before: pd.DataFrame, after: pd.DataFrame) -> list[Difference]:
    """All differences of one data set; Holm's adjustment is still to come, see `adjust`.

    Args:
        dataset: The data set's name.
        before: The baseline's predictions, paired with the model's by `pair_predictions`.
        after: The model's.
    """
    differences = []
    if "top5_indices" in after:
        correct_before, correct_after = outcomes(before), outcomes(after)
        for classes, rows in _class_groups(after):
            groups = object_groups(after[rows])
            for figure in correct_after.columns.intersection(correct_before.columns, sort=False):
                pair = correct_before.loc[rows, figure].to_numpy(), correct_after.loc[rows, figure].to_numpy()
                differences.append(_accuracy_difference(dataset, figure, classes, *pair, groups))
    groups = object_groups(after)
    if COUNTS[0] in after:
        counts = np.stack([before[list(COUNTS)], after[list(COUNTS)]], axis=1)  # (images, 2, 7)
        for figure in SEGMENTATION_FIGURES:
            score = functools.partial(_segmentation_score, figure)
            differences.append(_resampled_difference(dataset, figure, counts, score, groups))
    for figure in after.columns.intersection(before.columns).intersection(figures_of_kind("share"), sort=False):
        values = np.stack([before[figure], after[figure]], axis=1)  # (images, 2)
        differences.append(_resampled_difference(dataset, figure, values, np.mean, groups))
    for figure, summary_of in SUMMARIES.items():
        summaries = summary_of(before), summary_of(after)
        if None not in summaries:
            differences.append(_summary_difference(dataset, figure, *summaries, groups))
    return differences


def adjust(differences: list[Difference]) -> None:
    """Fill in `p_holm` and with it `significant`, over the data sets, for each figure and choice of classes."""
    families = defaultdict(list)
    for difference in differences:
        if difference.p is not None:
            families[difference.figure, difference.classes].append(difference)
    for family in families.values():
        for difference, p_holm in zip(family, holm([member.p for member in family]), strict=True):
            difference.p_holm = p_holm
            difference.significant = p_holm < SIGNIFICANCE


def is_significant(bounds: tuple[float, float], num_changed: int) -> bool:
    """Whether a figure without a test changed: its interval excludes 0, and six images or objects or more changed.

    Args:
        bounds: The interval.
        num_changed: How many independent images that the figure depends on changed in it.
    """
    low, high = bounds
    return num_changed >= FEWEST_CHANGED and bool(low > 0 or high < 0)


def _class_groups(after: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    yield "all", np.ones(len(after), dtype=bool)
    training = after.get("training_class")
    if training is not None and training.nunique() == 2:  # one group alone is all images
        yield "training", training.to_numpy(dtype=bool)
        yield "held-out", ~training.to_numpy(dtype=bool)


def _accuracy_difference(
    dataset: str, figure: str, classes: str, before: np.ndarray, after: np.ndarray, groups: np.ndarray | None
) -> Difference:
    low, high = difference_interval(before, after, groups)
    return Difference(
        dataset=dataset,
        figure=figure,
        classes=classes,
        n=len(after),
        before=100 * float(before.mean()),
        after=100 * float(after.mean()),
        difference=100 * float(after.mean() - before.mean()),
        interval95=(100 * low, 100 * high),
        p=mcnemar_p(before, after) if groups is None else sign_flip_p(before, after, groups),
        interval="score" if groups is None else "group bootstrap",
        test="mcnemar" if groups is None else "sign-flip",
    )


def _segmentation_score(figure: str, counts: np.ndarray) -> float:
    return segmentation_scores(counts)[figure]


def _resampled_difference(
    dataset: str,
    figure: str,
    pairs: np.ndarray,
    score: Callable[[np.ndarray], float],
    groups: np.ndarray | None,
) -> Difference:
    """A difference with the paired-bootstrap interval; `pairs` is (images, 2, ...), `score` takes (images, ...)."""

    def change(sample: np.ndarray) -> float:
        return score(sample[:, 1]) - score(sample[:, 0])

    scores = (float(score(pairs[:, model])) for model in (0, 1))
    changed = np.array([change(pair[None]) != 0 for pair in pairs])
    return _bootstrapped(dataset, figure, changed, *scores, bootstrap_interval(change, pairs, groups), groups)


def _summary_difference(
    dataset: str, figure: str, before: Summary, after: Summary, groups: np.ndarray | None
) -> Difference:
    """A difference with the paired interval of `corrected_bootstrap_interval`."""
    changed = after.changed_from(before)
    count = len(changed)
    bounds = corrected_bootstrap_interval(lambda weights: after(weights) - before(weights), count, groups)
    scores = (float(summary(np.ones(count))) for summary in (before, after))
    return _bootstrapped(dataset, figure, changed, *scores, bounds, groups)


def _bootstrapped(
    dataset: str,
    figure: str,
    changed: np.ndarray,
    before: float,
    after: float,
    bounds: tuple[float, float],
    groups: np.ndarray | None,
) -> Difference:
    """A difference without a test; `changed`, (images,) bool, says in which images it lies."""
    low, high = bounds
    num_changed = int(changed.sum()) if groups is None else len(np.unique(groups[changed]))
    return Difference(
        dataset=dataset,
        figure=figure,
        classes="all",
        n=len(changed),
        before=100 * before,
        after=100 * after,
        difference=100 * (after - before),
        interval95=(100 * low, 100 * high),
        significant=is_significant(bounds, num_changed),
        interval="bootstrap" if groups is None else "group bootstrap",
    )
