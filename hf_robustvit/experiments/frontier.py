"""What robustness costs: for every way to fine-tune, the curve from the original's weights to the fine-tuned ones."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.statistics import bootstrap_interval, difference_interval, object_groups
from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.recipes import FRONTIER, Recipe
from hf_robustvit.experiments.runs import Run
from hf_robustvit.files import replacing
from hf_robustvit.reporting.plots import plot_frontier, save_figure
from hf_robustvit.reporting.tables import markdown_table


SHARES = (0.25, 0.5, 0.75, 1.0)  # of the fine-tuned weights


def frontier_recipes() -> list[Recipe]:
    """Each way to fine-tune with each share of its weights."""
    return [Recipe(f"{recipe.label}, {share:.0%}", recipe.settings, share) for recipe in FRONTIER for share in SHARES]


def frontier(book: Book) -> str:
    """The mean change on the synthetic data sets over that on the natural ones; and the held-out classes' alone."""
    parts = []
    rows = [row for row in book.experiment.rows(book.workshop.suite) if not row[2].is_original]
    for model in dict.fromkeys(name for name, _, _ in rows):
        table = pd.DataFrame([_changes(book, recipe, run) for name, recipe, run in rows if name == model])
        stem = book.folder / f"{book.name}-{model}".replace("/", "-")
        with replacing(stem.with_suffix(".csv")) as path:
            table.to_csv(path, index=False)
        caption = f"{model}: change of top-1 with 25, 50, 75 and 100 % of the fine-tuned weights (WiSE-FT)"
        save_figure(plot_frontier(table, caption), stem)
        columns = [name.removesuffix("_low") for name in table if name.endswith("_low")]
        lines = [
            [row["recipe"], f"{row['share']:.0%}"]
            + [f"{row[name]:+.1f} [{row[f'{name}_low']:+.1f}, {row[f'{name}_high']:+.1f}]" for name in columns]
            for _, row in table.iterrows()
        ]
        header = ["", "share", *(name.replace("_", " ") for name in columns)]
        parts.append(f"{book.figure(stem.name, caption)}\n{markdown_table(header, lines)}\n")
    text = (
        "Change of top-1 accuracy in points from the original, the mean over the natural data sets and that over the "
        "synthetic ones, each data set counting alike, with paired 95 % intervals that keep whole objects together.\n"
    )
    return "\n".join([text, *parts])


def _changes(book: Book, recipe: Recipe, run: Run) -> dict[str, float | str]:
    suite = book.workshop.suite
    predictions = {
        name: {benchmark: book.paired_predictions(run, benchmark) for benchmark in sets.values()}
        for name, sets in (("natural", suite.natural), ("synthetic", suite.synthetic))
    }
    row: dict[str, float | str] = {"recipe": recipe.label.rpartition(", ")[0], "share": recipe.share}
    for ending, held_out in (("", False), ("_held_out", True)):
        for name, pairs in predictions.items():
            change, low, high = mean_change(pairs, held_out)
            row |= {name + ending: change, f"{name}{ending}_low": low, f"{name}{ending}_high": high}
    return row


def mean_change(pairs: Mapping[str, Sequence[pd.DataFrame]], held_out: bool) -> tuple[float, float, float]:
    """The mean over data sets of a run's change of top-1 from the original, and its 95 % interval, in points.

    Args:
        pairs: Data set, each counting alike -> the predictions before and after, as `pair_predictions` gives them.
        held_out: Whether only the images of classes that were not trained on count; all do where there are none.
    """
    parts = []
    for benchmark, (before, after) in pairs.items():
        if held_out and not after["training_class"].all():
            before, after = (frame[~after["training_class"].astype(bool)] for frame in (before, after))
        change = outcomes(after)["top1"].astype(float) - outcomes(before)["top1"].astype(float)
        # An image that stands alone is told from those of other data sets.
        group = after["object"] if "object" in after else [f"{benchmark}/{name}" for name in after.index]
        parts.append(pd.DataFrame({"change": change / len(change), "object": group}))
    rows = pd.concat(parts)
    # So that the mean over all rows is the mean over the data sets.
    weighted = rows["change"].to_numpy() * len(rows) / len(parts)
    groups = object_groups(rows)
    if weighted.any():
        low, high = bootstrap_interval(np.mean, weighted, groups)
    else:  # resampling tells nothing where nothing changed
        same = np.zeros(len(rows), dtype=bool)
        low, high = difference_interval(same, same, groups)
    return 100 * float(weighted.mean()), 100 * low, 100 * high
