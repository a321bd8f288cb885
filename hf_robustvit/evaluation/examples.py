"""Which images stand for what changed: chosen by a rule, never by hand."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes


KINDS = ("same", "corrected", "broken")


def evenly_spaced(length: int, count: int) -> np.ndarray:
    """At most `count` of the rows 0 to `length` - 1, from the first to the last."""
    return np.linspace(0, length - 1, min(count, length), dtype=int)


def choose_examples(
    before: pd.DataFrame, after: pd.DataFrame, kind: Literal["same", "corrected", "broken"], count: int
) -> list[str]:
    """The images that show one kind of change: the first of each class, then the second, and so on.

    The order within a class is that of the data set, that of the classes that of their first such image. Nothing else
    counts, so the images are as good or as bad as any (the paper's Fig. 15 takes the first ones, too).

    Args:
        before: The baseline's predictions, paired with the model's by `pair_predictions`.
        after: The model's.
        kind: "same", right in both; "corrected", wrong before and right after; "broken", right before and wrong after.
        count: How many at most.

    Returns:
        Their image_ids, in the order they were chosen in.
    """
    right_before, right_after = outcomes(before)["top1"], outcomes(after)["top1"]
    wanted = {"same": right_before & right_after, "corrected": ~right_before & right_after}
    wanted["broken"] = right_before & ~right_after
    return first_of_each_class(after["class_name"][wanted[kind]], count)


def choose_kinds(frames: Sequence[pd.DataFrame], count: int) -> dict[str, list[str]]:
    """Kind -> at most `count` images: "corrected" and "broken" of two models, "wrong" and "right" of one.

    Args:
        frames: Each model's predictions, paired by `pair_predictions`.
        count: How many of each kind at most.
    """
    if len(frames) > 1:
        return {kind: choose_examples(*frames, kind, count) for kind in ("corrected", "broken")}
    right, classes = outcomes(frames[0])["top1"], frames[0]["class_name"]
    return {"wrong": first_of_each_class(classes[~right], count), "right": first_of_each_class(classes[right], count)}


def first_of_each_class(classes: pd.Series, count: int) -> list[str]:
    """The first image of each class, then the second of each, and so on.

    Args:
        classes: The class of each image that may be chosen, by image_id, in the data set's order.
        count: How many at most.
    """
    rank = classes.groupby(classes).cumcount()
    return rank.sort_values(kind="stable").index[:count].tolist()
