"""Mean changes over data sets: of ways to fine-tune from the original, or of one from another, by the same images."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.statistics import bootstrap_interval, difference_interval, object_groups
from hf_robustvit.experiments.suites import Suite


CHANGES = ("natural", "synthetic", "natural_held_out", "synthetic_held_out")
# The predictions before and after, as `pair_predictions` gives them, once for each seed.
Pairs = Sequence[Sequence[pd.DataFrame]]


def mean_changes(pairs: Mapping[str, Pairs], suite: Suite) -> dict[str, float]:
    """The mean change of top-1 on the suite's natural and on its synthetic data sets, each data set counting alike.

    Args:
        pairs: Benchmark -> predictions.
        suite: Tells the one kind of benchmark from the other.

    Returns:
        `natural`, `synthetic`, `natural_held_out` and `synthetic_held_out` (the classes that were not trained on; all
        where there are none), in points, each with its 95 % interval `..._low` to `..._high`.
    """
    row = {}
    for name in CHANGES:
        sets = suite.natural if name.startswith("natural") else suite.synthetic
        chosen = {benchmark: pairs[benchmark] for benchmark in sets.values()}
        row[name], row[f"{name}_low"], row[f"{name}_high"] = mean_change(chosen, name.endswith("held_out"))
    return row


def mean_change(pairs: Mapping[str, Pairs], held_out: bool) -> tuple[float, float, float]:
    """The mean over data sets of the change of top-1, and its 95 % interval, in points.

    The interval keeps together all images of an object, and an image's predictions by all seeds: it tells what other
    images would give, not what other seeds would.

    Args:
        pairs: Data set, each counting alike -> predictions.
        held_out: Whether only the images of classes that were not trained on count; all do where there are none.
    """
    parts = []
    for benchmark, seeds in pairs.items():
        for before, after in seeds:
            if held_out and not after["training_class"].all():
                before, after = (frame[~after["training_class"].astype(bool)] for frame in (before, after))
            change = outcomes(after)["top1"].astype(float) - outcomes(before)["top1"].astype(float)
            # An image that stands alone is told from those of other data sets.
            group = after["object"] if "object" in after else [f"{benchmark}/{name}" for name in after.index]
            parts.append(pd.DataFrame({"change": change / len(change) / len(seeds), "object": group}))
    rows = pd.concat(parts)
    # So that the mean over all rows is the mean over the data sets.
    weighted = rows["change"].to_numpy() * len(rows) / len(pairs)
    groups = object_groups(rows)
    if weighted.any():
        low, high = bootstrap_interval(np.mean, weighted, groups)
    else:  # resampling tells nothing where nothing changed
        same = np.zeros(len(rows), dtype=bool)
        low, high = difference_interval(same, same, groups)
    return 100 * float(weighted.mean()), 100 * low, 100 * high


def change_cells(row: Mapping[str, float]) -> list[str]:
    """The changes of `mean_changes` with their intervals, as text."""
    return [f"{row[name]:+.1f} [{row[f'{name}_low']:+.1f}, {row[f'{name}_high']:+.1f}]" for name in CHANGES]
