"""What an audit finds: its figures, the classes and photos that lean on their background most, and the verdict."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.audit import OTHERS, PLACES
from hf_robustvit.evaluation.statistics import (
    CONFIDENCE,
    accuracy_interval,
    difference_interval,
    group_bootstrap_interval,
    object_groups,
)


LIMIT = 10.0
"""A model leans on the background where more than this hangs on it, in percent: one decision in ten."""
FEWEST = {"background": 6, "object": 30}
"""Photos that a verdict takes: fewer than 6 all change the same way by chance more often than in one audit of 20; and
30 of which none changes are the fewest that rule out a share of one in ten (3 / n, the rule of three)."""
POWER = 0.8
NUM_SHOWN = 12
FIGURES = {
    "top1": "top1",
    "object_alone": "grey",
    "background_alone": "alone",
    "own_background": "own",
    "same_class_background": "same",
    **{name: name for name in PLACES},
    "oracle": "top1_oracle",
}
"""Accuracy -> the kind of picture it is of."""


def verdict(num_photos: int, intervals: Sequence[Sequence[float]]) -> Literal["background", "object", "unclear"]:
    """On which side of the limit the intervals of reliance and of following lie.

    Args:
        num_photos: What they come from.
        intervals: Two 95 % intervals, in percent.
    """
    if num_photos >= FEWEST["background"] and any(low > LIMIT for low, _ in intervals):
        return "background"
    if num_photos >= FEWEST["object"] and all(high < LIMIT for _, high in intervals):
        return "object"
    return "unclear"


def find(answers: pd.DataFrame) -> dict[str, Any]:
    """All findings, in percent; intervals are of 95 %, and keep photos of the same object together.

    Args:
        answers: As `load_answers` gives them.

    Returns:
        `verdict`; `reliance`, the share of the probability of the photos' classes that is lost where objects stand on
        backgrounds of other classes instead of on their own one, mirrored, None where the model gets no photo right;
        `follows_background`, how many more objects are taken for what the model sees in a background alone where they
        stand on it than where they do not; the interval of each; `detectable_reliance`, the smallest that so many
        photos would show to be above the limit with a power of 80 %, None where they would show none; `fewest`, the
        photos that verdicts take; `figures`, accuracies by kind of picture; `differences` between these; `classes` and
        `photos`, those that rely on their background most first; a class has no reliance, None, where no photo of it
        is right on its own background, mirrored.
    """
    groups = object_groups(answers)
    photos = answers.assign(group=np.arange(len(answers)) if groups is None else groups, **outcomes(answers))
    for kind in ("grey", "alone", "own", "same", *PLACES):
        is_right = photos[f"{kind}_guess"] == photos["label"]
        photos[kind] = is_right.astype("boolean").where(photos[f"{kind}_guess"].notna())
    swaps = _swaps(photos)
    # What is told of the own background and of others is told of the same photos.
    photos["own"] = photos["own"].where(photos["image_id"].isin(swaps["image_id"]))

    pairs = swaps[["own_probability", "elsewhere_probability"]].to_numpy()
    bounds = group_bootstrap_interval(_lost, pairs, swaps["group"].to_numpy())
    low, high = (100 * bound for bound in bounds)
    # A model that gets nothing right has nothing to lose.
    has_something = bool(photos["top1"].any())
    following = _difference(swaps, "stays", "follows")
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)
    detectable = LIMIT + (1 + stats.norm.ppf(POWER) / z) * (high - low) / 2
    num_photos = swaps["image_id"].nunique()
    can_show = has_something and num_photos >= FEWEST["background"] and detectable <= 100
    reliance = (low, high) if has_something else (-np.inf, np.inf)
    return {
        "verdict": verdict(num_photos, [reliance, following["interval95"]]),
        "num_photos": num_photos,
        "reliance": 100 * _lost(pairs) if has_something else None,
        "reliance_interval95": [low, high] if has_something else None,
        "follows_background": following["difference"],
        "follows_background_interval95": following["interval95"],
        "limit": LIMIT,
        "fewest": FEWEST,
        "detectable_reliance": detectable if can_show else None,
        "figures": {figure: _accuracy(photos, kind) for figure, kind in FIGURES.items()}
        | {"other_class_background": _accuracy(swaps, "elsewhere")},
        "differences": {
            "other_backgrounds": _difference(swaps, "own", "elsewhere"),
            "background_gap": _difference(swaps, "elsewhere", "same"),
            "moved": _difference(photos, "centred", "moved"),
            "shrunk": _difference(photos, "centred", "shrunk"),
            "oracle_headroom": _difference(photos, "top1", "top1_oracle"),
        },
        "classes": _classes(swaps),
        "photos": _leaning(swaps),
    }


def _swaps(photos: pd.DataFrame) -> pd.DataFrame:
    """A row for each photo's object on each background of another class: `elsewhere`, and what it is held against.

    Where a photo has fewer such backgrounds than others its rows are repeated: means over rows are means over photos.
    """
    names = {"image": "background", "guess": "guess", "probability": "elsewhere_probability"}
    swaps = pd.concat(
        [photos.assign(other=name, **{new: photos[f"{name}_{old}"] for old, new in names.items()}) for name in OTHERS]
    ).dropna(subset="background")
    num_rows = swaps.groupby("image_id")["image_id"].transform("size")
    swaps = swaps.iloc[np.repeat(np.arange(len(swaps)), math.lcm(*range(1, len(OTHERS) + 1)) // num_rows)]
    seen = swaps["background"].map(photos.set_index("image_id")["alone_guess"])
    return swaps.assign(
        elsewhere=swaps["guess"] == swaps["label"], follows=swaps["guess"] == seen, stays=swaps["own_guess"] == seen
    )


def _lost(pairs: np.ndarray) -> float:
    """The share of the first column, (rows, 2), that is missing in the second."""
    before, after = pairs.mean(axis=0)
    return float(1 - after / before)


def _accuracy(rows: pd.DataFrame, kind: str) -> dict[str, Any] | None:
    """The share of the rows that are right, where they have such a picture; None where none has."""
    (right,), about = _columns(rows, kind)
    if not about["n"]:
        return None
    bounds = accuracy_interval(right, about.pop("groups"))
    return {"value": 100 * float(right.mean()), "interval95": [100 * bound for bound in bounds]} | about


def _difference(rows: pd.DataFrame, before: str, after: str) -> dict[str, Any] | None:
    """The paired difference of two shares of the rows that have both pictures; None where none has."""
    (first, second), about = _columns(rows, before, after)
    if not about["n"]:
        return None
    bounds = difference_interval(first, second, about.pop("groups"))
    shares = {"before": 100 * float(first.mean()), "after": 100 * float(second.mean())}
    difference = {"difference": shares["after"] - shares["before"], "interval95": [100 * bound for bound in bounds]}
    return shares | difference | about


def _columns(rows: pd.DataFrame, *kinds: str) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Bool columns of the rows that have them all; `n` photos, 0 if fewer than two can be told apart; `groups`."""
    rows = rows.dropna(subset=list(kinds))
    groups = rows["group"].to_numpy() if rows["group"].duplicated().any() else None
    is_enough = groups is None or len(np.unique(groups)) > 1
    about = {"n": rows["image_id"].nunique() if is_enough else 0, "groups": groups}
    return [rows[kind].to_numpy(dtype=bool) for kind in kinds], about


def _classes(swaps: pd.DataFrame) -> list[dict[str, Any]]:
    """Each class's accuracies and reliance, the most reliant first, and last those that have nothing to lose."""
    by_class = swaps.groupby("class_name")
    classes = 100 * by_class[["top1", "own", "elsewhere"]].mean().astype(float)
    means = by_class[["own_probability", "elsewhere_probability"]].mean()
    reliance = 100 * (1 - means["elsewhere_probability"] / means["own_probability"])
    # A share of the little probability that a class has where no photo of it is right may be -2000 %.
    classes["reliance"] = reliance.where(classes["own"] > 0)
    classes.insert(0, "n", by_class["image_id"].nunique())
    classes = classes.sort_values("reliance", ascending=False, kind="stable").reset_index()
    return classes.astype(object).where(classes.notna(), None).to_dict("records")


def _leaning(swaps: pd.DataFrame) -> list[dict[str, Any]]:
    """The photos whose class loses most probability on other backgrounds, with the one where it loses most."""
    photos = (
        swaps.sort_values("elsewhere_probability", kind="stable").drop_duplicates("image_id").set_index("image_id")
    )
    means = 100 * swaps.groupby("image_id")[["own_probability", "elsewhere_probability"]].mean()
    photos[["own", "elsewhere"]] = means
    loss = (photos["own"] - photos["elsewhere"]).sort_values(ascending=False, kind="stable").head(NUM_SHOWN)
    columns = ["class_name", "label", "own", "elsewhere", "other", "background"]
    return photos.loc[loss[loss > 0].index, columns].reset_index().to_dict("records")
