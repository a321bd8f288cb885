"""Accuracy per class before and after (paper App. J), and which classes are taken for which."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.summaries import FEWEST_IMAGES


@dataclass(frozen=True)
class Confusion:
    """The first guesses of two models for the images of a few classes.

    Attributes:
        classes: The classes' names.
        before, after: (classes, classes + 1) numbers of images: a row for each true class, a column for each guess,
            the last for all other classes.
    """

    classes: list[str]
    before: list[list[int]]
    after: list[list[int]]


def class_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The top-1 accuracy of each class, before and after.

    Args:
        before: The baseline's predictions, paired with the model's by `pair_predictions`.
        after: The model's.

    Returns:
        Columns `class_name`, `n`, `before`, `after`, `difference` (percent), most improved class first.
    """
    correct = pd.DataFrame({"before": outcomes(before)["top1"], "after": outcomes(after)["top1"]})
    groups = correct.groupby(after["class_name"])
    changes = 100 * groups.mean()
    changes.insert(0, "n", groups.size())
    changes["difference"] = changes["after"] - changes["before"]
    # Classes that changed alike stay in the order of their names.
    return changes.reset_index().sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def most_changed(changes: pd.DataFrame, count: int = 50) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The classes that improved most and those harmed most, strongest first, at most `count` of each."""
    improved = changes[changes["difference"] > 0]
    harmed = changes[changes["difference"] < 0]
    return improved.head(count), harmed.iloc[::-1].head(count)


def lowest_classes(
    per_class: Mapping[str, Mapping[str, float]], count: int = 5
) -> list[tuple[str, Mapping[str, float]]]:
    """Those of a result's classes with the lowest top-1 accuracy, lowest first, among those of ten images or more.

    Args:
        per_class: As in `BenchmarkResult`.
        count: How many.
    """
    large = [(name, figures) for name, figures in per_class.items() if figures["n"] >= FEWEST_IMAGES]
    return sorted(large, key=lambda item: (item[1]["top1"], item[0]))[:count]


def changed_confusion(before: pd.DataFrame, after: pd.DataFrame, count: int = 5) -> Confusion | None:
    """The confusion matrices of the classes that changed most: that have, or were guessed for, most changed images.

    Args:
        before: The baseline's predictions, paired with the model's by `pair_predictions`.
        after: The model's.
        count: How many classes; fewer where fewer changed.

    Returns:
        None where no guess moved from, to or between the data set's classes.
    """
    true, guesses = after["class_name"], [_guessed_classes(frame) for frame in (before, after)]
    changed = Counter(
        name for images in zip(true, *guesses, strict=True) if images[1] != images[2] for name in set(images) - {None}
    )
    if not changed:
        return None
    classes = sorted(changed, key=lambda name: (-changed[name], name))[:count]
    places = {name: place for place, name in enumerate(classes)}
    tables = np.zeros((2, len(classes), len(classes) + 1), dtype=int)
    for table, guessed in zip(tables, guesses, strict=True):
        for name, guess in zip(true, guessed, strict=True):
            if name in places:
                table[places[name], places.get(guess, len(classes))] += 1
    return Confusion(classes, *tables.tolist())


def _guessed_classes(frame: pd.DataFrame) -> list[str | None]:
    """The class of the first guess for each image, None where it is none of the data set's."""
    if "predicted" in frame:
        return frame["predicted"].tolist()
    names, correct = dict(zip(frame["label"], frame["class_name"], strict=True)), outcomes(frame)["top1"]
    rows = zip(correct, frame["class_name"], frame["top5_indices"], strict=True)
    return [name if is_right else names.get(indices[0]) for is_right, name, indices in rows]
