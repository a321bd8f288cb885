"""Figures that are no mean over the images: calibration, shape bias, the worst classes and groups, and the like.

Each function of `SUMMARIES` takes the rows of a result and gives a `Summary`, None where the rows do not tell it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.calibration import NUM_BINS, bins_of, predictions_of
from hf_robustvit.evaluation.statistics import corrected_bootstrap_interval, object_groups


# A class of fewer images is left out: the worst of many such is worst by chance.
FEWEST_IMAGES = 10
WORST_SHARE = 0.1

#: What the authors of data sets with textures or groups report of them.
OFFICIAL = ("shape_bias", "worst_group_top1", "adjusted_top1")


@dataclass(frozen=True)
class Summary:
    """A figure as a function of the images' weights, which the bootstrap draws.

    Attributes:
        figure: From (images,) weights to the figure.
        read: Columns, (images,) each: what it reads of an image.
        decisive: (images,) bool, the images that it depends on; True for all.
    """

    figure: Callable[[np.ndarray], float]
    read: tuple[np.ndarray, ...]
    decisive: np.ndarray | bool = True

    def __call__(self, weights: np.ndarray) -> float:
        """The figure of images that were drawn so often."""
        return self.figure(weights)

    def changed_from(self, before: "Summary") -> np.ndarray:
        """(images,) bool: what is read of them differs, and one of the two depends on it."""
        differs = np.any([new != old for new, old in zip(self.read, before.read, strict=True)], axis=0)
        return differs & (self.decisive | before.decisive)


def calibration_error(frame: pd.DataFrame) -> Summary | None:
    """The expected calibration error in [0, 1], as `calibrate` gives it."""
    if "top5_probabilities" not in frame:
        return None
    confidence, correct = predictions_of(frame)
    bins, excess = bins_of(confidence), correct - confidence
    return Summary(
        lambda weights: np.abs(np.bincount(bins, weights * excess, NUM_BINS)).sum() / weights.sum(),
        read=(confidence, correct),
    )


def worst_classes(frame: pd.DataFrame) -> Summary | None:
    """The mean top-1 accuracy of the tenth of the classes where it is lowest, of one class at least."""
    if "top5_indices" not in frame:
        return None
    codes, names = pd.factorize(frame["class_name"])
    large = np.flatnonzero(np.bincount(codes) >= FEWEST_IMAGES)
    if len(large) < 2:
        return None
    correct, count = outcomes(frame)["top1"].to_numpy(), max(1, round(WORST_SHARE * len(large)))

    def accuracies(weights: np.ndarray) -> np.ndarray:
        hits, totals = (np.bincount(codes, values, len(names))[large] for values in (weights * correct, weights))
        with np.errstate(invalid="ignore"):  # a class that was not drawn is nan, and sorted last
            return hits / totals

    lowest = large[np.argsort(accuracies(np.ones(len(frame))), kind="stable")[:count]]
    return Summary(
        lambda weights: float(np.sort(accuracies(weights))[:count].mean()),
        read=(correct,),
        decisive=np.isin(codes, lowest),
    )


def shape_bias(frame: pd.DataFrame) -> Summary | None:
    """The share of shape among the decisions for an image's shape or its texture (Geirhos et al., ICLR 2019).

    Images whose shape and texture are of one class count for neither.
    """
    if "texture" not in frame:
        return None
    is_conflict = frame["class_name"] != frame["texture"]
    cues = ("class_name", "texture")
    shape, texture = ((is_conflict & (frame["predicted"] == frame[cue])).to_numpy() for cue in cues)
    decided = shape | texture
    if not decided.any():
        return None

    def share(weights: np.ndarray) -> float:
        total = weights @ decided
        return float(weights @ shape / total) if total else float("nan")

    return Summary(share, read=(shape, texture))


def worst_group(frame: pd.DataFrame) -> Summary | None:
    """The accuracy of the group where it is lowest (Sagawa et al., ICLR 2020)."""
    if "group" not in frame:
        return None
    accuracies, codes, correct = _accuracies_of_groups(frame)
    return Summary(
        lambda weights: float(np.nanmin(accuracies(weights))),
        read=(correct,),
        decisive=codes == np.argmin(accuracies(np.ones(len(frame)))),
    )


def adjusted_average(frame: pd.DataFrame) -> Summary | None:
    """The mean of the groups' accuracies, weighted by their training images (Sagawa et al., ICLR 2020)."""
    if "group" not in frame:
        return None
    accuracies, _, correct = _accuracies_of_groups(frame)
    sizes = frame.groupby("group")["group_weight"].first().to_numpy()

    def average(weights: np.ndarray) -> float:
        each = accuracies(weights)
        drawn = ~np.isnan(each)
        return float(np.average(each[drawn], weights=sizes[drawn]))

    return Summary(average, read=(correct,))


def _accuracies_of_groups(
    frame: pd.DataFrame,
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray, np.ndarray]:
    """From weights to the accuracy of each group, nan if not drawn; each image's group, and whether it is right."""
    codes, correct = pd.factorize(frame["group"], sort=True)[0], outcomes(frame)["top1"].to_numpy()

    def accuracies(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.bincount(codes, weights * correct) / np.bincount(codes, weights)

    return accuracies, codes, correct


def foreground_sensitivity(frame: pd.DataFrame) -> Summary | None:
    """Relative foreground sensitivity (Moayeri et al., CVPR 2022, Sec. 4), in [-1, 1].

    RFS = (b - f) / (2 min(m, 1 - m)), where f and b are the accuracies under noise on the foreground and on the
    background, over the images, and m is their mean; 0 where both are 0 or both 1, as in the authors' code. Above 0,
    noise on the object does more harm than the same noise around it.
    """
    if "foreground_noise" not in frame:
        return None
    foreground, background = (frame[f"{part}_noise"].to_numpy() for part in ("foreground", "background"))

    def sensitivity(weights: np.ndarray) -> float:
        under_foreground, under_background = (weights @ hits / weights.sum() for hits in (foreground, background))
        mean = (under_foreground + under_background) / 2
        room = 2 * min(mean, 1 - mean)
        return float((under_background - under_foreground) / room) if room > 1e-9 else 0.0

    return Summary(sensitivity, read=(foreground, background))


SUMMARIES: dict[str, Callable[[pd.DataFrame], Summary | None]] = {
    "ece": calibration_error,
    "worst_classes_top1": worst_classes,
    "shape_bias": shape_bias,
    "worst_group_top1": worst_group,
    "adjusted_top1": adjusted_average,
    "foreground_sensitivity": foreground_sensitivity,
}


def summary_figures(frame: pd.DataFrame) -> dict[str, float | list[float] | None]:
    """The summaries that a result's rows tell (percent), and their intervals.

    An interval is None where all resamples are alike, as those of a class without a single hit: they tell nothing.
    """
    figures, groups = {}, object_groups(frame)
    for name, summary_of in SUMMARIES.items():
        if summary := summary_of(frame):
            lowest = -1 if name == "foreground_sensitivity" else 0
            low, high = corrected_bootstrap_interval(summary, len(frame), groups)
            figures[name] = 100 * float(summary(np.ones(len(frame))))
            figures[f"{name}_ci95"] = [100 * max(low, lowest), 100 * min(high, 1)] if high - low > 1e-9 else None
    return figures
