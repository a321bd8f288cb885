"""Official figures of several data sets together: ImageNet-9's gap, ImageNet-C's mean error, the spurious score."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.comparison import Difference, is_significant, pair_predictions
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions, write_result
from hf_robustvit.evaluation.statistics import (
    accuracy_interval,
    bootstrap_interval,
    difference_interval,
    object_groups,
)


logger = logging.getLogger(__name__)

# Data set -> what `_read` gives.
Frames = Mapping[str, pd.DataFrame]

# AlexNet's error under each corruption, by which the authors divide a model's: the mean over five severities, as in
# AugMix (by the same author, github.com/google-research/augmix) and in OpenMMLab's mmpretrain.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


class Estimate(NamedTuple):
    """A figure of several data sets, or how it changed; in [0, 1].

    Attributes:
        value: The figure.
        bounds: Its 95 % interval.
        paired: Whether that is from resampling what all the data sets have in common: photographs, or classes.
        num_changed: Of a change, how many of these changed.
    """

    value: float
    bounds: tuple[float, float]
    paired: bool
    num_changed: int


@dataclass(frozen=True)
class WeightedSum:
    """A figure that is a weighted sum of data sets' top-1 accuracies.

    Attributes:
        group: What the data sets are called together.
        figure: Its name.
        weights: Data set -> the weight of its accuracy in [0, 1].
        constant: What is added.
    """

    group: str
    figure: str
    weights: Mapping[str, float]
    constant: float = 0.0

    @property
    def names(self) -> list[str]:
        """The data sets."""
        return list(self.weights)

    def estimate(self, frames: Frames, baselines: Frames | None = None) -> Estimate:
        """The figure by a model's predictions, or its change from a baseline's about the same images.

        Where all data sets have the same photographs, each equally often, the sums of single photographs are
        resampled. Elsewhere the data sets are taken for independent, and their own intervals are put together (MOVER:
        Zou and Donner, Statistics in Medicine 27, 2008).
        """
        hits = {name: frame["top1"].to_numpy() for name, frame in frames.items()}
        before = {name: frame["top1"].to_numpy() for name, frame in (baselines or {}).items()}
        values = {name: top1.astype(float) - before.get(name, 0) for name, top1 in hits.items()}  # (images,) each
        value = float(sum(weight * values[name].mean() for name, weight in self.weights.items()))
        photos = {
            name: pd.Series(each).groupby(frames[name]["object"].to_numpy()).agg(["mean", "size"])
            for name, each in values.items()
        }
        index = photos[self.names[0]].index
        paired = all(each.index.equals(index) and each["size"].nunique() == 1 for each in photos.values())
        if paired:
            sums = sum(weight * photos[name]["mean"].to_numpy() for name, weight in self.weights.items())
            low, high = bootstrap_interval(np.mean, sums)
        else:
            logger.warning(
                "%s: its data sets differ in their photographs, so the interval of %s takes them for independent",
                self.group,
                self.figure,
            )
            reaches = []
            for name, weight in self.weights.items():
                groups = object_groups(frames[name])
                if baselines:
                    bounds = difference_interval(before[name], hits[name], groups)
                else:
                    bounds = accuracy_interval(hits[name], groups)
                reaches.append(sorted(weight * (bound - values[name].mean()) for bound in bounds))
            below, above = np.sqrt(np.sum(np.square(reaches), axis=0))
            low, high = float(value - below), float(value + above)
        constant = 0.0 if baselines else self.constant
        changed = set().union(*(frame["object"][values[name] != 0] for name, frame in frames.items()))
        return Estimate(constant + value, (constant + low, constant + high), paired, len(changed))


@dataclass(frozen=True)
class SpuriousScore:
    """How well a class's probability tells photographs of the class from those of what often goes with it.

    For each class the average precision (the area under the precision-recall curve, as in the code of Neuhaus et al.,
    ICCV 2023, whose paper calls it AUC) of ImageNet's validation images of the class against Spurious ImageNet's; the
    figure is the mean over the classes, and its interval is from resampling them.
    """

    group: str = "spurious-score"
    figure: str = "spurious_score"
    absent: str = "spurious-imagenet"
    shown: str = "imagenet-val"

    @property
    def names(self) -> list[str]:
        """The data sets."""
        return [self.absent, self.shown]

    def estimate(self, frames: Frames, baselines: Frames | None = None) -> Estimate:
        """The figure by a model's predictions, or its change from a baseline's about the same images."""
        scores = self.by_class(frames)
        if baselines:
            scores = scores - self.by_class(baselines)
        bounds = bootstrap_interval(np.mean, scores.to_numpy())
        return Estimate(float(scores.mean()), bounds, True, np.count_nonzero(scores))

    def by_class(self, frames: Frames) -> pd.Series:
        """The average precision of every class that both data sets have, in [0, 1]."""
        both = pd.concat([frames[name].assign(is_shown=name == self.shown) for name in self.names])
        classes = {name: rows for name, rows in both.groupby("class_name") if rows["is_shown"].nunique() == 2}
        return pd.Series(
            {
                name: average_precision_score(rows["is_shown"], rows["class_probability"])
                for name, rows in classes.items()
            }
        )


_SHARES = {f"imagenet-c-{name}": 1 / (len(ALEXNET_ERRORS) * error) for name, error in ALEXNET_ERRORS.items()}
COMBINED = (
    WeightedSum("imagenet-9", "bg_gap", {"imagenet-9-mixed_same": 1.0, "imagenet-9-mixed_rand": -1.0}),
    WeightedSum("imagenet-c", "mean_top1", dict.fromkeys(_SHARES, 1 / len(_SHARES))),
    WeightedSum(
        "imagenet-c",
        "mean_corruption_error",
        {name: -share for name, share in _SHARES.items()},
        constant=sum(_SHARES.values()),
    ),
    SpuriousScore(),
)


def combine(folder: Path, results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """The figures of data sets together, where all of them were run; also written to `<group>.json`.

    Args:
        folder: Where the data sets' predictions are.
        results: Of one model.

    Returns:
        One result for each group, with these figures alone. `protocol["paired"]` tells whether their
        intervals are from resampling what all the data sets have in common.
    """
    results_of: dict[str, BenchmarkResult] = {}
    by_name = {result.dataset: result for result in results}
    for combined in (each for each in COMBINED if by_name.keys() >= set(each.names)):
        value, bounds, paired, _ = combined.estimate({name: _read(folder, name) for name in combined.names})
        parts = [by_name[name] for name in combined.names]
        planned = BenchmarkResult(
            dataset=combined.group,
            model=parts[0].model,
            revision=parts[0].revision,
            num_images=sum(part.num_images for part in parts),
            protocol=parts[0].protocol | {"paired": paired},
            weights=parts[0].weights,
            data=" ".join(part.data for part in parts),
            group="object" if paired else None,
            interval="group bootstrap" if paired else "score",
        )
        result = results_of.setdefault(combined.group, planned)
        setattr(result, combined.figure, 100 * value)
        setattr(result, f"{combined.figure}_ci95", [100 * bound for bound in bounds])
    for result in results_of.values():
        write_result(folder, result, None)
    return list(results_of.values())


def compare_combined(baseline_folder: Path, folder: Path, names: Sequence[str]) -> list[Difference]:
    """How the figures of data sets together changed, where all of them were run by both models.

    Args:
        baseline_folder, folder: Where the predictions of the baseline and of the model are.
        names: The data sets that were run.
    """
    differences = []
    for combined in (each for each in COMBINED if set(names) >= set(each.names)):
        baselines, frames = {}, {}
        for name in combined.names:
            both = (_read(each, name) for each in (baseline_folder, folder))
            baselines[name], frames[name] = pair_predictions(name, *both)
        after = combined.estimate(frames).value
        change, bounds, paired, num_changed = combined.estimate(frames, baselines)
        differences.append(
            Difference(
                dataset=combined.group,
                figure=combined.figure,
                classes="all",
                n=sum(map(len, frames.values())),
                before=100 * (after - change),
                after=100 * after,
                difference=100 * change,
                interval95=tuple(100 * bound for bound in bounds),
                significant=is_significant(bounds, num_changed),
                interval="group bootstrap" if paired else "score",
            )
        )
    return differences


def _read(folder: Path, name: str) -> pd.DataFrame:
    """What the figures need of a data set's predictions: ImageNet-C has millions. `top1` where it has labels."""
    frame = read_predictions(folder, name)
    kept = frame[frame.columns.intersection(["image_id", "object", "class_name", "class_probability"])]
    return kept.assign(top1=outcomes(frame)["top1"]) if "top5_indices" in frame else kept
