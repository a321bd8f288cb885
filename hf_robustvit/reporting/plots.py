"""Plots: told apart by marker, hatch and label, not by colour alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_robustvit.fonts import write_figure
from hf_robustvit.reporting.pictures import without_formulas, wrapped


# Okabe and Ito's colours, which any colour vision tells apart; a wine red for their yellow, too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999999")
IMPROVED, HARMED = COLOURS[:2]
MARKERS = "osD^vP*Xh"
FACTOR_LABELS = {"area": "area of the object's square (share of the image)", "rotation": "angle (degrees)"}
MOST_WRITTEN = 81  # numbers that can be read in a heat map
MOST_TICKS = 12  # on an axis


def save_figure(figure: Figure, stem: Path, *endings: str) -> None:
    """Write `<stem>.png` and `<stem>.pdf`, or the endings that are given."""
    for ending in endings or (".png", ".pdf"):
        write_figure(figure, stem.with_name(stem.name + ending), dpi=150)


def plot_class_changes(improved: pd.DataFrame, harmed: pd.DataFrame, title: str) -> Figure:
    """App. J: the most improved and the most harmed classes side by side.

    Args:
        improved: `class_name`, `n` and `difference` of the most improved classes, strongest first.
        harmed: The same of the most harmed.
        title: Stands above both.
    """
    rows = max(len(improved), len(harmed), 1)
    figure = Figure(figsize=(12, 1.6 + 0.19 * rows), layout="constrained")
    figure.suptitle(title)
    # One scale for both, so that lengths compare.
    limit = 1.05 * max([1.0, *improved["difference"].abs(), *harmed["difference"].abs()])
    panels = ((improved, IMPROVED, "improved", (0, limit)), (harmed, HARMED, "harmed", (-limit, 0)))
    for axes, (changes, colour, kind, limits) in zip(figure.subplots(1, 2), panels, strict=True):
        counted = zip(changes["class_name"].map(without_formulas), changes["n"], strict=True)
        names = [f"{name} (n={n})" for name, n in counted]
        axes.barh(range(len(changes)), changes["difference"], color=colour)
        axes.set_yticks(range(len(changes)), names, fontsize=8)
        axes.set_xlim(limits)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.axvline(0, color="black", linewidth=0.8)
        _finish(axes, f"{len(changes)} most {kind} classes", "change of top-1 accuracy (percentage points)", "", "x")
    return figure


def plot_class_groups(changes: pd.DataFrame, title: str) -> Figure:
    """Fig. 4 and App. H: the change on training and on held-out classes, data set by data set.

    Args:
        changes: `dataset` (its title), `classes` ("training" or "held-out"), `change`, and `low` and `high`, the ends
            of its interval, in percentage points.
        title: Stands above.
    """
    names = list(dict.fromkeys(changes["dataset"]))
    figure = Figure(figsize=(8, 1.4 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    for offset, classes, colour, hatch in ((-0.2, "training", COLOURS[0], ""), (0.2, "held-out", COLOURS[1], "//")):
        shown = changes[changes["classes"] == classes]
        places = shown["dataset"].map(names.index) + offset
        error = [shown["change"] - shown["low"], shown["high"] - shown["change"]]
        bars = axes.barh(places, shown["change"], 0.38, color=colour, hatch=hatch, edgecolor="white")
        axes.errorbar(shown["change"], places, xerr=error, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
        bars.set_label(f"{classes} classes")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.legend(frameon=False)
    _finish(axes, title, "change (percentage points)", "", "x")
    return figure


def plot_sensitivity(panels: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """Fig. 7: the change of the accuracy over a quantity, one line for each data set.

    Args:
        panels: (name of the quantity, data frame of `quantity`, `dataset` (its title), `change`, `low`, `high`).
    """
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, (quantity, changes) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        for number, (name, line) in enumerate(changes.groupby("dataset", sort=False)):
            line = line.sort_values("quantity")
            # A little apart, so that the intervals can be seen.
            places = line["quantity"] * (1 + 0.012 * (number - changes["dataset"].nunique() / 2))
            _draw_line(axes, places, line["change"], line["low"], line["high"], name, number)
        axes.set_xscale("log")
        ticks = sorted(changes["quantity"].unique())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        _finish(axes, "", quantity, "change of top-1 accuracy (percentage points)")
        axes.axhline(0, color="black", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_learning_rates(figures: pd.DataFrame, chosen: float | None, title: str) -> Figure:
    """Section 4's search: accuracy and classification loss on the validation images over the learning rate.

    Args:
        figures: `rate`, and `accuracy_change` (percentage points) and `loss_change` from before the fine-tuning.
        chosen: The rate that the rule takes, if any.
        title: Stands above.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    figure.suptitle(title)
    panels = (
        ("accuracy_change", "validation accuracy,\nchange (points)"),
        ("loss_change", "classification loss,\nchange"),
    )
    for axes, (column, label) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(figures["rate"], figures[column], color=COLOURS[0], marker="o")
        if chosen is not None:
            axes.axvline(chosen, color=COLOURS[1], linestyle="--", label=f"chosen: {chosen:g}")
            axes.legend(frameon=False)
        axes.set_xscale("log")
        axes.set_xticks(figures["rate"], [f"{rate:g}" for rate in figures["rate"]], rotation=30)
        axes.minorticks_off()
        _finish(axes, "", "learning rate", label)
        axes.axhline(0, color="black", linewidth=0.8)
    return figure


def plot_frontier(table: pd.DataFrame, title: str) -> Figure:
    """What natural data sets lose against what synthetic ones gain, a line for each way to fine-tune.

    Args:
        table: `recipe`, `share` (of the fine-tuned weights; a line starts at the original), and `natural` and
            `synthetic`, the changes in points, with the interval of the latter, `synthetic_low` to `synthetic_high`.
        title: Stands above.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, line) in enumerate(table.groupby("recipe", sort=False)):
        line = line.sort_values("share")
        axes.plot([0, line["natural"].iloc[0]], [0, line["synthetic"].iloc[0]], color=COLOURS[number % len(COLOURS)])
        _draw_line(
            axes, line["natural"], line["synthetic"], line["synthetic_low"], line["synthetic_high"], name, number
        )
    for edge in (axes.axhline, axes.axvline):
        edge(0, color="black", linewidth=0.8)
    axes.legend(edgecolor="none", framealpha=1, fontsize=8)
    _finish(axes, title, "natural data sets, change (points)", "synthetic data sets, change (points)", "both")
    return figure


def plot_factor(curve: pd.DataFrame, title: str) -> Figure:
    """The accuracy over the area, the angle or the place of objects; of places a heat map for each model.

    Args:
        curve: As `accuracy_curve` gives it, of one model or two.
        title: Stands above.
    """
    models = list(curve["model"].unique())
    if "x" in curve:
        maps = {model: _over_places(curve, model) for model in models}
        figure = Figure(figsize=(3.7 * len(maps), 3.6), layout="constrained")
        figure.suptitle(title)
        top, bottom = max(map(np.nanmax, maps.values())), min(map(np.nanmin, maps.values()))
        for axes, (model, table) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
            drawn = axes.pcolormesh(table.columns, table.index, table, cmap="cividis", vmin=bottom, vmax=top)
            if table.size <= MOST_WRITTEN:
                for (row, column), value in np.ndenumerate(table.to_numpy()):
                    colour = "black" if value > (top + bottom) / 2 else "white"
                    place = table.columns[column], table.index[row]
                    axes.text(*place, f"{value:.1f}", color=colour, ha="center", va="center")
            axes.invert_yaxis()
            axes.set_aspect("equal")
            _finish(axes, model, "centre, share of the width", "share of the height", "both")
            axes.set_xticks(table.columns[:: -(-len(table.columns) // MOST_TICKS)])
            axes.set_yticks(table.index[:: -(-len(table.index) // MOST_TICKS)])
            axes.grid(False)
        figure.colorbar(drawn, ax=figure.axes, label="top-1 accuracy (%)")
        return figure
    (factor,) = FACTOR_LABELS.keys() & set(curve)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, model in enumerate(models):
        line = curve[curve["model"] == model]
        # The last model has the first colour, alone or not.
        style = len(models) - 1 - number
        _draw_line(axes, line[factor], line["top1"], line["low"], line["high"], model, style)
    if len(models) > 1:
        axes.legend(frameon=False)
    _finish(axes, title, FACTOR_LABELS[factor], "top-1 accuracy (%)")
    return figure


def _draw_line(
    axes: Axes, places: pd.Series, values: pd.Series, low: pd.Series, high: pd.Series, label: str, style: int
) -> None:
    """Draw a line with the interval of each of its points."""
    axes.errorbar(
        places,
        values,
        [(values - low).clip(lower=0), (high - values).clip(lower=0)],
        label=label,
        color=COLOURS[style % len(COLOURS)],
        marker=MARKERS[style % len(MARKERS)],
        markersize=5,
        linewidth=1.2,
        elinewidth=0.6,
        capsize=2,
    )


def _over_places(curve: pd.DataFrame, model: str) -> pd.DataFrame:
    return curve[curve["model"] == model].pivot(index="y", columns="x", values="top1")


def plot_subsets(
    images: np.ndarray, titles: Sequence[str], subsets: Sequence[Sequence[tuple[str, np.ndarray]]]
) -> Figure:
    """Fig. 5: images, and the few pixels of each that are enough for a class; the rest is white.

    Args:
        images: (images, height, width, 3) in [0, 1].
        titles: What each is.
        subsets: For each image (caption, (height, width) bool) for each class.
    """
    columns = 1 + len(subsets[0])
    figure = Figure(figsize=(1.9 * columns, 2.25 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, (image, title, found) in enumerate(zip(images, titles, subsets, strict=True)):
        pictures = [(title, image), *((caption, np.where(mask[..., None], image, 1.0)) for caption, mask in found)]
        for axes, (caption, picture) in zip(grid[row], pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(wrapped(caption), fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def _finish(axes: Axes, title: str, x_label: str, y_label: str, grid: str = "y") -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
