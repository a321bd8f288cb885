"""Accuracy over the factor that a data set varies, as SI-Score's authors plot it."""

from collections.abc import Mapping

import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.statistics import accuracy_interval


# By the last word of a data set's name, where its predictions have these columns.
FACTOR_COLUMNS = {"size": ["area"], "rotation": ["rotation"], "location": ["x", "y"]}
# A factor with more values is put into as many bins of equal width.
MOST_VALUES = 24


def varied_columns(dataset: str) -> list[str] | None:
    """The columns of the factor that a data set varies; what ends in -size, -rotation or -location varies one."""
    return FACTOR_COLUMNS.get(dataset.rpartition("-")[2])


def accuracy_curve(dataset: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """Top-1 accuracy for each value of the factor that a data set varies.

    Args:
        dataset: Its name, see `varied_columns`.
        frames: The model's title -> its predictions.

    Returns:
        `model`; `area`, `rotation`, or `x` and `y`; `n` images; `top1` (percent); `low` and `high`, its interval by
        image. None where the data set varies no factor, or its images' values are not known.
    """
    columns = varied_columns(dataset)
    if columns is None or not all(set(columns) <= set(frame) for frame in frames.values()):
        return None
    points = []
    for model, frame in frames.items():
        values = frame[columns].apply(_few).dropna()
        top1 = outcomes(frame)["top1"].loc[values.index]
        for value, correct in top1.groupby([values[column] for column in columns]):
            low, high = accuracy_interval(correct.to_numpy())
            figures = {"n": len(correct), "top1": 100 * correct.mean(), "low": 100 * low, "high": 100 * high}
            points.append({"model": model} | dict(zip(columns, value, strict=True)) | figures)
    return pd.DataFrame(points) if points else None


def _few(values: pd.Series) -> pd.Series:
    values = values.astype(float).round(4)
    if values.nunique() <= MOST_VALUES:
        return values
    return pd.cut(values, MOST_VALUES).map(lambda interval: interval.mid).astype(float)
