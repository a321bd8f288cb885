"""Official figures of a data set that are no mean over its images: shape bias, and accuracy over groups."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.statistics import bootstrap_interval, object_groups


@dataclass(frozen=True)
class Ratio:
    """A figure that is a function of means over the images.

    Attributes:
        column: Of the predictions; a data set that has it has the figure.
        counts: From the predictions to (images, ...), whose means count.
        score: From these means, (...), to the figure in [0, 1].
    """

    column: str
    counts: Callable[[pd.DataFrame], np.ndarray]
    score: Callable[[np.ndarray], float]

    def of_sample(self, counts: np.ndarray) -> float:
        """The figure of some images, (images, ...)."""
        return float(self.score(counts.mean(axis=0)))


def decisions(frame: pd.DataFrame) -> np.ndarray:
    """(images, 2), 1 where the model decided for the class of the shape, and for that of the texture.

    Images whose shape and texture are of one class count for neither.
    """
    is_conflict = frame["class_name"] != frame["texture"]
    cues = [frame["predicted"] == frame[cue] for cue in ("class_name", "texture")]
    return np.stack([is_conflict & decided for decided in cues], axis=1).astype(float)


def group_hits(frame: pd.DataFrame) -> np.ndarray:
    """(images, 3, groups): whether an image is of a group and right, whether it is of it, and then its weight."""
    is_member = pd.get_dummies(frame["group"]).to_numpy(dtype=float)  # (images, groups)
    hits, weights = outcomes(frame)["top1"].to_numpy(), frame["group_weight"].to_numpy()
    return np.stack([is_member * hits[:, None], is_member, is_member * weights[:, None]], axis=1)


def _shape_share(means: np.ndarray) -> float:
    shape, texture = means
    return shape / (shape + texture) if shape + texture else np.nan


def _worst(means: np.ndarray) -> float:
    hits, members, _ = means[:, means[1] > 0]
    return (hits / members).min()


def _adjusted(means: np.ndarray) -> float:
    hits, members, weights = means[:, means[1] > 0]
    return np.average(hits / members, weights=weights / members)


#: Shape bias is the share of shape among the decisions for shape or texture (Geirhos et al., ICLR 2019). The worst
#: group's accuracy, and the mean of the groups' weighted by their training images: Sagawa et al., ICLR 2020.
RATIOS = {
    "shape_bias": Ratio("texture", decisions, _shape_share),
    "worst_group_top1": Ratio("group", group_hits, _worst),
    "adjusted_top1": Ratio("group", group_hits, _adjusted),
}


def ratio_figures(frame: pd.DataFrame) -> dict[str, float | list[float]]:
    """The figures that a data set has (percent), and their (group) bootstrap intervals; none that is not defined."""
    figures, groups = {}, object_groups(frame)
    for name, ratio in RATIOS.items():
        if ratio.column in frame:
            counts = ratio.counts(frame)
            value = ratio.of_sample(counts)
            if np.isfinite(value):
                low, high = bootstrap_interval(ratio.of_sample, counts, groups)
                figures |= {name: 100 * value, f"{name}_ci95": [100 * low, 100 * high]}
    return figures
