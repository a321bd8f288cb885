"""What robustness costs: for every way to fine-tune, the curve from the original's weights to the fine-tuned ones."""

import pandas as pd

from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.means import CHANGES, change_cells, mean_changes
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
        lines = [[row["recipe"], f"{row['share']:.0%}", *change_cells(row)] for _, row in table.iterrows()]
        header = ["", "share", *(name.replace("_", " ") for name in CHANGES)]
        parts.append(f"{book.figure(stem.name, caption)}\n{markdown_table(header, lines)}\n")
    text = (
        "Change of top-1 accuracy in points from the original, the mean over the natural data sets and that over the "
        "synthetic ones, each data set counting alike, with paired 95 % intervals that keep whole objects together.\n"
    )
    return "\n".join([text, *parts])


def _changes(book: Book, recipe: Recipe, run: Run) -> dict[str, float | str]:
    suite = book.workshop.suite
    pairs = {benchmark: [book.paired_predictions(run, benchmark)] for benchmark in suite.benchmarks.values()}
    label = recipe.label.rpartition(", ")[0]
    return {"recipe": label, "share": recipe.share, **mean_changes(pairs, suite)}
