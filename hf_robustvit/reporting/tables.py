"""Markdown tables, for the terminal and for files alike; tables of experiments also as LaTeX and CSV."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.comparison import Difference
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, FAITHFULNESS_FIGURES, FIGURES
from hf_robustvit.evaluation.per_class import Confusion, lowest_classes
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.files import write_text


MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Attributes:
        text: As it is printed.
        is_best: Whether it is the model's best in its column: bold.
        is_significant: Whether it differs from the original's beyond chance: a star.
    """

    text: str = MISSING
    is_best: bool = False
    is_significant: bool = False

    @property
    def markdown(self) -> str:
        text = f"**{self.text}**" if self.is_best else self.text
        return f"{text} *" if self.is_significant else text

    @property
    def latex(self) -> str:
        text = self.text.replace("±", r"$\pm$").replace(MISSING, "--")
        text = rf"\textbf{{{text}}}" if self.is_best else text
        return f"{text}$^*$" if self.is_significant else text


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns: text to the left, numbers to the right.

    Args:
        header: The column titles.
        rows: Cells; floats get two decimals, None a dash.
    """
    rows = list(rows)
    text = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*text, strict=True)]
    numeric = [all(isinstance(row[column], int | float | None) for row in rows) for column in range(len(header))]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    lines = [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        for line in (text[0], rule, *text[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def validation_table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """The validation figures of a fine-tuning run, as `Trainer.evaluate` gives them, before and after."""
    figures = ("loss", "accuracy", "relevance_in_mask", "background_loss", "foreground_loss", "classification_loss")
    shown = [name for name in figures if f"eval_{name}" in after]
    rows = [[name, *(f"{metrics[f'eval_{name}']:.4f}" for metrics in (before, after))] for name in shown]
    return markdown_table(("validation", "before", "after"), rows)


def results_table(results: Iterable[BenchmarkResult]) -> str:
    """One model on several data sets, percent; columns that no data set fills are left out."""
    results = list(results)
    elsewhere = {"top1", "top1_oracle", *CHANGE_FIGURES} - {*FAITHFULNESS_FIGURES}
    figures = [name for name in FIGURES if name not in elsewhere]
    figures = [name for name in figures if any(getattr(result, name) is not None for result in results)]
    rows = [
        [result.dataset, result.num_images, result.top1, interval(result.top1_ci95)]
        + [_figure(result, name) for name in figures]
        for result in results
    ]
    return markdown_table(["dataset", "images", "top1", "95 % interval", *figures], rows)


def _figure(result: BenchmarkResult, name: str) -> float | str | None:
    """A figure, a summary with its interval."""
    value = getattr(result, name)
    bounds = getattr(result, f"{name}_ci95", None)
    return f"{value:.2f} {interval(bounds)}" if bounds and FIGURES[name].kind == "summary" else value


def lowest_classes_table(results: Iterable[BenchmarkResult], readable: Callable[[str], str]) -> str | None:
    """The classes where one model's top-1 is lowest; None where no data set has classes of enough images.

    Args:
        results: Of the model.
        readable: From a class's name to how it is shown.
    """
    rows = [
        [result.dataset, readable(name), figures["n"], figures["top1"]]
        for result in results
        for name, figures in lowest_classes(result.per_class)
    ]
    return markdown_table(["dataset", "lowest classes", "n", "top1"], rows) if rows else None


def confusion_table(confusion: Confusion, readable: Callable[[str], str]) -> str:
    """The confusions of the classes that changed, in images, before → after where they differ."""
    names = [f"{number} {readable(name)}" for number, name in enumerate(confusion.classes, 1)]
    rows = [
        [name, *(old if old == new else f"{old} → {new}" for old, new in zip(*counts, strict=True))]
        for name, *counts in zip(names, confusion.before, confusion.after, strict=True)
    ]
    return markdown_table(["true class", *map(str, range(1, len(names) + 1)), "other"], rows)


def figures_table(results: Iterable[BenchmarkResult], figures: Sequence[str]) -> str:
    """Those of chosen figures that one model has, percent, on the data sets that have any of them."""
    results = list(results)
    figures = [name for name in figures if any(getattr(result, name) is not None for result in results)]
    rows = [[result.dataset, result.num_images, *(_figure(result, name) for name in figures)] for result in results]
    rows = [row for row in rows if any(value is not None for value in row[2:])]
    return markdown_table(["dataset", "images", *figures], rows)


def oracle_table(results: Iterable[BenchmarkResult]) -> str:
    """Top-1 of the model and of the oracle with the paired difference, on the data sets that have it."""
    rows = [
        [
            result.dataset,
            result.num_images,
            result.top1,
            result.top1_oracle,
            f"{result.top1_oracle - result.top1:+.2f}",
            interval(result.oracle_headroom_ci95),
        ]
        for result in results
        if result.top1_oracle is not None
    ]
    return markdown_table(["dataset", "images", "top1", "top1_oracle", "headroom", "95 % interval"], rows)


def comparison_table(differences: Iterable[Difference]) -> str:
    """Differences between two models, percentage points; a star marks the significant ones."""
    header = ["dataset", "figure", "classes", "n", "before", "after", "difference", "95 % interval", "p", "Holm p", ""]
    rows = [
        [
            item.dataset,
            item.figure,
            item.classes,
            item.n,
            item.before,
            item.after,
            f"{item.difference:+.2f}",
            interval(item.interval95),
            p_value(item.p),
            p_value(item.p_holm),
            "*" if item.significant else "",
        ]
        for item in differences
    ]
    return markdown_table(header, rows)


def intervals_note(results: Iterable[BenchmarkResult]) -> str:
    """How the intervals of one model's figures were made, and its maps where that is not by the paper's rule."""
    results = list(results)
    by_image = "Intervals of accuracies are Wilson's score intervals, those of other figures from the bootstrap."
    note = _by_image_or_object(results, by_image, "intervals are from resampling objects (group bootstrap)")
    rules = dict.fromkeys(result.protocol.get("relevance_method", "gae") for result in results)
    return note if [*rules] == ["gae"] else f"{note} Maps are made by the rule {' or '.join(rules)}."


def statistics_note(differences: Iterable[Difference]) -> str:
    """How the intervals and p-values of differences were made, and what is significant."""
    by_image = (
        "Intervals of accuracies are paired score intervals (Tango's) and p is McNemar's exact one; intervals of "
        "other figures are from the paired bootstrap."
    )
    by_object = (
        "intervals are from resampling objects (paired group bootstrap), and p is that of a sign-flip permutation "
        "test over objects"
    )
    significant = (
        "An accuracy changed significantly where p, adjusted by Holm over the data sets, is below 0.05; another "
        "figure where its interval excludes 0 and at least six of the independent images that it depends on changed."
    )
    return f"{_by_image_or_object(list(differences), by_image, by_object)} {significant}"


def _by_image_or_object(items: Sequence[BenchmarkResult | Difference], by_image: str, by_object: str) -> str:
    """What is true of the data sets that show each object once, and of those that repeat them."""
    grouped = list(dict.fromkeys(item.dataset for item in items if item.interval == "group bootstrap"))
    sentences = [by_image] if any(item.interval != "group bootstrap" for item in items) else []
    if grouped:
        sentences.append(f"{', '.join(grouped)}: images show the same objects several times, so {by_object}.")
    return " ".join(sentences)


def class_changes_table(changes: pd.DataFrame) -> str:
    """Accuracy per class before and after, percent."""
    rows = [[row.class_name, row.n, row.before, row.after, f"{row.difference:+.2f}"] for row in changes.itertuples()]
    return markdown_table(["class", "n", "before", "after", "difference"], rows)


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str | None:
    """An interval in brackets; a bound that rounds to 0 has no sign."""
    if bounds is None:
        return None
    low, high = (round(bound, digits) + 0.0 for bound in bounds)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def p_value(p: float | None) -> str | None:
    """A p-value with two digits that count."""
    return None if p is None else f"{p:.2g}" if p >= 1e-4 else "<0.0001"


def titled(
    results: pd.DataFrame, datasets: Mapping[str, str], figures: Sequence[str], classes: Sequence[str] = ("all",)
) -> pd.DataFrame:
    """The tidy results of chosen data sets (title -> name), figures and classes, each data set by its title."""
    titles = {name: title for title, name in datasets.items()}
    chosen = {"dataset": titles, "figure": figures, "classes": classes}
    shown = results[np.logical_and.reduce([results[name].isin(values) for name, values in chosen.items()])]
    return shown.assign(dataset=shown["dataset"].map(titles))


def cell_table(
    cells: pd.DataFrame, rows: Sequence[str], datasets: Iterable[str], figures: Sequence[str]
) -> pd.DataFrame:
    """Lay cells out: a column for each data set and figure that there is.

    Args:
        cells: `cell`, `dataset` (its title), `figure`, and the columns that name a row.
        rows: The names of these columns; rows stand in the order they are met in.
        datasets, figures: The order of the columns.
    """
    there = set(zip(cells["dataset"], cells["figure"], strict=True))
    order = [(dataset, figure) for dataset in datasets for figure in figures if (dataset, figure) in there]
    table = cells.pivot(index=rows, columns=["dataset", "figure"], values="cell")
    table = table.reindex(index=pd.MultiIndex.from_frame(cells[rows].drop_duplicates()))[order]
    table = table.rename(columns={name: FIGURES[name].title for name in figures}, level="figure")
    return table.map(lambda cell: cell if isinstance(cell, Cell) else Cell())


def accuracy_cells(
    results: pd.DataFrame, datasets: Mapping[str, str], figures: Sequence[str], with_changes: bool = False
) -> pd.DataFrame:
    """Lay tidy results out: a row for each model and method, a column for each data set and figure.

    Args:
        results: Tidy results, see `experiments.results.tidy_results`; those of all classes are shown.
        datasets: Column title -> data set.
        figures: Which figures of each.
        with_changes: Whether the change from the original stands behind each number, as in the paper's Tab. 2.

    Returns:
        A data frame of `Cell`, rows (model, method), columns (data set, figure).
    """
    shown = titled(results, datasets, figures)
    worth = shown["value"] * shown["figure"].map(lambda name: -1 if FIGURES[name].lower_is_better else 1)
    is_best = worth == worth.groupby([shown[name] for name in ("model", "dataset", "figure")]).transform("max")
    is_best &= shown["method"].nunique() > 1  # alone in its column nothing is best
    shown["cell"] = [
        Cell(
            f"{row.value:.1f}" + (f" ({row.difference:+.1f})" if with_changes and pd.notna(row.difference) else ""),
            best,
            row.significant is True,
        )
        for row, best in zip(shown.itertuples(), is_best, strict=True)
    ]
    return cell_table(shown, ["model", "method"], datasets, figures)


def average_changes(
    results: pd.DataFrame, datasets: Mapping[str, str], figures: Sequence[str], methods: Sequence[str]
) -> pd.DataFrame:
    """The mean change over the models, a row for each method, laid out as `accuracy_cells`."""
    shown = titled(results, datasets, figures)
    shown = shown[shown["method"].isin(methods)]
    means = shown.groupby(["method", "dataset", "figure"], sort=False, as_index=False)["difference"].mean()
    means["cell"] = [Cell(f"{change:+.1f}") for change in means["difference"]]
    return cell_table(means.assign(model="Avg. change"), ["model", "method"], datasets, figures)


def write_table(stem: Path, cells: pd.DataFrame, caption: str) -> str:
    """Write a table of `Cell` to `<stem>.md`, `<stem>.tex` and `<stem>.csv`.

    Args:
        stem: Path without an ending.
        cells: Rows and columns of one or two levels.
        caption: What it shows.

    Returns:
        The Markdown text, caption included.
    """
    cells = _without_empty_levels(cells)
    titles = [" ".join(column) if isinstance(column, tuple) else column for column in cells.columns]
    rows = [[*key, *(cell.markdown for cell in row)] for key, row in zip(cells.index, cells.to_numpy(), strict=True)]
    text = f"{caption}\n\n{markdown_table([*cells.index.names, *titles], rows)}\n"
    latex = cells.map(lambda cell: cell.latex).rename(index=_escape_latex, columns=_escape_latex)
    latex = latex.to_latex(caption=_escape_latex(caption), label=f"tab:{stem.name}", multicolumn_format="c")
    csv = cells.map(lambda cell: cell.text).to_csv()
    for ending, content in ((".md", text), (".tex", latex), (".csv", csv)):
        write_text(stem.with_suffix(ending), content)
    return text


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _without_empty_levels(cells: pd.DataFrame) -> pd.DataFrame:
    """The table without the level of its column titles that is the same everywhere."""
    cells = cells.rename_axis(columns=[None] * cells.columns.nlevels)
    for level in reversed(range(cells.columns.nlevels)):
        if cells.columns.nlevels > 1 and cells.columns.get_level_values(level).nunique() == 1:
            cells = cells.droplevel(level, axis="columns")
    return cells


def _escape_latex(text: str) -> str:
    for character in "&%_#":
        text = text.replace(character, f"\\{character}")
    return text
