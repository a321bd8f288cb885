"""Tables of several models and methods in the paper's layout, as Markdown, LaTeX and CSV."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hf_robustvit.evaluation.figures import FIGURES
from hf_robustvit.files import replacing
from hf_robustvit.reporting.tables import markdown_table


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


def accuracy_cells(results: pd.DataFrame, datasets: dict[str, str], figures: list[str], with_changes: bool = False):
    """Lay tidy results out: a row for each model and method, a column for each data set and figure.

    Args:
        results: Tidy results of all classes, see `experiments.results.tidy_results`.
        datasets: Column title -> data set.
        figures: Which figures of each.
        with_changes: Whether the change from the original stands behind each number, as in the paper's Tab. 2.

    Returns:
        A data frame of `Cell`, rows (model, method), columns (data set, figure).
    """
    titles = {name: title for title, name in datasets.items()}
    shown = results[results["dataset"].isin(titles) & results["figure"].isin(figures) & (results["classes"] == "all")]
    sign = shown["figure"].map(lambda name: -1 if FIGURES[name].lower_is_better else 1)
    best = (sign * shown["value"]).groupby([shown[name] for name in ("model", "dataset", "figure")]).transform("max")
    cells = [
        Cell(
            f"{row.value:.1f}"
            + (f" ({row.difference:+.1f})" if with_changes and row.difference == row.difference else ""),
            # Alone in its column nothing is best.
            is_best=bool(is_best) and (shown["method"].nunique() > 1),
            is_significant=row.significant is True,
        )
        for row, is_best in zip(shown.itertuples(), (sign * shown["value"]) == best, strict=True)
    ]
    keys = shown.assign(
        cell=cells, dataset=shown["dataset"].map(titles), figure=shown["figure"].map(lambda name: FIGURES[name].title)
    )
    table = keys.pivot(index=["model", "method"], columns=["dataset", "figure"], values="cell")
    order = [(title, FIGURES[figure].title) for title in datasets for figure in figures]
    table = table.reindex(index=pd.MultiIndex.from_frame(shown[["model", "method"]].drop_duplicates()))
    return table[[column for column in order if column in table.columns]].map(
        lambda cell: cell if isinstance(cell, Cell) else Cell()
    )


def average_changes(results: pd.DataFrame, datasets: dict[str, str], figures: list[str], methods: list[str]):
    """The mean change over the models, a row for each method, laid out as `accuracy_cells`."""
    titles = {name: title for title, name in datasets.items()}
    shown = results[results["dataset"].isin(titles) & results["figure"].isin(figures) & (results["classes"] == "all")]
    shown = shown[shown["method"].isin(methods)]
    means = shown.groupby(["method", "dataset", "figure"], sort=False)["difference"].mean()
    rows = pd.MultiIndex.from_product([["Avg. change"], methods], names=["model", "method"])
    columns = pd.MultiIndex.from_product([datasets, [FIGURES[figure].title for figure in figures]])
    cells = [
        [Cell(f"{means[method, name, figure]:+.1f}") for name in datasets.values() for figure in figures]
        for method in methods
    ]
    return pd.DataFrame(cells, index=rows, columns=columns)


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
        with replacing(stem.with_suffix(ending)) as path:
            path.write_text(content, encoding="utf-8")
    return text


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
