"""Official figures of several data sets together: ImageNet-9's gap between backgrounds, ImageNet-C's mean error."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.comparison import FEWEST_FOR_INTERVAL, Difference, pair_predictions
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions, write_result
from hf_robustvit.evaluation.statistics import (
    accuracy_interval,
    bootstrap_interval,
    difference_interval,
    object_groups,
)


logger = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Combination:
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


@dataclass(frozen=True)
class Part:
    """One data set's share in a sum.

    Attributes:
        photos: (images,) the photograph that each image is made of.
        values: (images,) what is averaged: whether each is right, or how that changed.
        bounds: The 95 % interval of their mean.
    """

    photos: pd.Series
    values: np.ndarray
    bounds: tuple[float, float]


_SHARES = {f"imagenet-c-{name}": 1 / (len(ALEXNET_ERRORS) * error) for name, error in ALEXNET_ERRORS.items()}
COMBINATIONS = (
    Combination("imagenet-9", "bg_gap", {"imagenet-9-mixed_same": 1.0, "imagenet-9-mixed_rand": -1.0}),
    Combination("imagenet-c", "mean_top1", dict.fromkeys(_SHARES, 1 / len(_SHARES))),
    Combination(
        "imagenet-c",
        "mean_corruption_error",
        {name: -share for name, share in _SHARES.items()},
        constant=sum(_SHARES.values()),
    ),
)


def combine(folder: Path, results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """The figures of data sets together, where all of them were run; also written to `<group>.json`.

    Args:
        folder: Where the data sets' predictions are.
        results: Of one model.

    Returns:
        One result for each group, with the figures of kind "sum" alone. `protocol["paired"]` tells whether the same
        photographs are in all its data sets, so that intervals are from resampling photographs.
    """
    combined: dict[str, BenchmarkResult] = {}
    by_name = {result.dataset: result for result in results}
    for combination in COMBINATIONS:
        if not combination.weights.keys() <= by_name.keys():
            continue
        parts = {}
        for name in combination.weights:
            frame = read_predictions(folder, name)
            top1 = outcomes(frame)["top1"].to_numpy()
            parts[name] = Part(frame["object"], top1, accuracy_interval(top1, object_groups(frame)))
        value, (low, high), paired = _weighted_sum(combination, parts)
        first = by_name[next(iter(parts))]
        planned = BenchmarkResult(
            dataset=combination.group,
            model=first.model,
            revision=first.revision,
            num_images=sum(by_name[name].num_images for name in parts),
            protocol=first.protocol | {"paired": paired},
            weights=first.weights,
            data=" ".join(by_name[name].data for name in parts),
            group="object" if paired else None,
            interval="group bootstrap" if paired else "score",
        )
        result = combined.setdefault(combination.group, planned)
        setattr(result, combination.figure, 100 * (combination.constant + value))
        bounds = [100 * (combination.constant + bound) for bound in (low, high)]
        setattr(result, f"{combination.figure}_ci95", bounds)
    for result in combined.values():
        write_result(folder, result, None)
    return list(combined.values())


def compare_combined(baseline_folder: Path, folder: Path, names: Sequence[str]) -> list[Difference]:
    """How the figures of data sets together changed, where all of them were run by both models.

    Args:
        baseline_folder, folder: Where the predictions of the baseline and of the model are.
        names: The data sets that were run.
    """
    differences = []
    for combination in COMBINATIONS:
        if not combination.weights.keys() <= set(names):
            continue
        parts, means = {}, []
        for name, weight in combination.weights.items():
            frames = pair_predictions(name, *(read_predictions(each, name) for each in (baseline_folder, folder)))
            before, after = (outcomes(frame)["top1"].to_numpy() for frame in frames)
            bounds = difference_interval(before, after, object_groups(frames[1]))
            parts[name] = Part(frames[1]["object"], after.astype(float) - before, bounds)
            means.append([weight * before.mean(), weight * after.mean()])
        before, after = 100 * (combination.constant + np.sum(means, axis=0))
        change, (low, high), paired = _weighted_sum(combination, parts)
        count = sum(len(part.values) for part in parts.values())
        differences.append(
            Difference(
                dataset=combination.group,
                figure=combination.figure,
                classes="all",
                n=count,
                before=float(before),
                after=float(after),
                difference=100 * change,
                interval95=(100 * low, 100 * high),
                significant=count >= FEWEST_FOR_INTERVAL and bool(low > 0 or high < 0),
                interval="group bootstrap" if paired else "score",
            )
        )
    return differences


def _weighted_sum(combination: Combination, parts: Mapping[str, Part]) -> tuple[float, tuple[float, float], bool]:
    """The weighted sum of the data sets' means without its constant, its 95 % interval, and whether that is paired.

    Where all data sets have the same photographs, each equally often, the sums of single photographs are resampled.
    Elsewhere the data sets are taken for independent, and their own intervals are put together (MOVER: Zou and
    Donner, Statistics in Medicine 27, 2008).
    """
    weights = combination.weights
    value = float(sum(weight * parts[name].values.mean() for name, weight in weights.items()))
    photos = {
        name: pd.Series(part.values, dtype=float).groupby(part.photos.to_numpy()).agg(["mean", "size"])
        for name, part in parts.items()
    }
    index = next(iter(photos.values())).index
    if all(each.index.equals(index) and each["size"].nunique() == 1 for each in photos.values()):
        sums = sum(weight * photos[name]["mean"].to_numpy() for name, weight in weights.items())  # (photographs,)
        return value, bootstrap_interval(np.mean, sums), True
    logger.warning(
        "%s: its data sets differ in their photographs, so the interval of %s takes them for independent",
        combination.group,
        combination.figure,
    )
    reaches = [
        sorted(weight * (bound - parts[name].values.mean()) for bound in parts[name].bounds)
        for name, weight in weights.items()
    ]
    below, above = np.sqrt(np.sum(np.square(reaches), axis=0))
    return value, (float(value - below), float(value + above)), False
