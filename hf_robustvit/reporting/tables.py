"""Markdown tables, for the terminal and for files alike."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from hf_robustvit.evaluation.comparison import Difference
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, FIGURES
from hf_robustvit.evaluation.results import BenchmarkResult


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
    figures = [name for name in FIGURES if name not in ("top1", "top1_oracle", *CHANGE_FIGURES)]
    figures = [name for name in figures if any(getattr(result, name) is not None for result in results)]
    rows = [
        [result.dataset, result.num_images, result.top1, interval(result.top1_ci95)]
        + [getattr(result, name) for name in figures]
        for result in results
    ]
    return markdown_table(["dataset", "images", "top1", "95 % interval", *figures], rows)


def figures_table(results: Iterable[BenchmarkResult], figures: Sequence[str]) -> str:
    """Chosen figures of one model, percent, on the data sets that have any of them."""
    rows = [[result.dataset, result.num_images, *(getattr(result, name) for name in figures)] for result in results]
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


def class_changes_table(changes: pd.DataFrame) -> str:
    """Accuracy per class before and after, percent."""
    rows = [[row.class_name, row.n, row.before, row.after, f"{row.difference:+.2f}"] for row in changes.itertuples()]
    return markdown_table(["class", "n", "before", "after", "difference"], rows)


def interval(bounds: Sequence[float] | None) -> str | None:
    """An interval in brackets."""
    return None if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"


def p_value(p: float | None) -> str | None:
    """A p-value with two digits that count."""
    return None if p is None else f"{p:.2g}" if p >= 1e-4 else "<0.0001"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value).replace("|", "\\|")
