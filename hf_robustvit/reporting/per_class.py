"""Bar plots of accuracy changes: class by class (paper App. J), and on training against held-out classes (App. H)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_robustvit.evaluation.comparison import Difference


# Okabe and Ito's blue and vermilion: told apart with any colour vision.
IMPROVED, HARMED = "#0072B2", "#D55E00"


def plot_class_changes(improved: pd.DataFrame, harmed: pd.DataFrame, title: str, path: Path) -> None:
    """Draw the most improved and the most harmed classes side by side.

    Args:
        improved: `class_name`, `n` and `difference` of the most improved classes, strongest first.
        harmed: The same of the most harmed.
        title: Stands above both.
        path: The PNG to write.
    """
    rows = max(len(improved), len(harmed), 1)
    figure = Figure(figsize=(12, 1.6 + 0.19 * rows), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 2)
    _draw_classes(panels[0], improved, IMPROVED, f"{len(improved)} most improved classes", rows)
    _draw_classes(panels[1], harmed, HARMED, f"{len(harmed)} most harmed classes", rows)
    figure.savefig(path, dpi=120)


def plot_class_groups(differences: Sequence[Difference], figure_name: str, path: Path) -> None:
    """Draw the change on training and on held-out classes, data set by data set, with its 95 % interval.

    Args:
        differences: Of all data sets; those with other classes or figures are passed over.
        figure_name: "top1" or "top5".
        path: The PNG to write.
    """
    names = list(dict.fromkeys(item.dataset for item in differences))
    figure = Figure(figsize=(8, 1.4 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    for offset, classes, colour in ((-0.2, "training", IMPROVED), (0.2, "held-out", HARMED)):
        shown = [item for item in differences if (item.classes, item.figure) == (classes, figure_name)]
        centre = np.array([item.difference for item in shown])
        error = np.abs(np.array([item.interval95 for item in shown]).reshape(-1, 2).T - centre)
        places = [names.index(item.dataset) + offset for item in shown]
        axes.barh(places, centre, height=0.36, color=colour, xerr=error, capsize=2, label=f"{classes} classes")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    _finish(axes, f"change of {figure_name} accuracy (percentage points)")
    axes.legend()
    figure.savefig(path, dpi=120)


def _draw_classes(axes: Axes, changes: pd.DataFrame, colour: str, title: str, rows: int) -> None:
    names = [f"{name} (n={n})" for name, n in zip(changes["class_name"], changes["n"], strict=True)]
    axes.barh(range(len(changes)), changes["difference"], color=colour)
    axes.set_yticks(range(len(changes)), names, fontsize=8)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_title(title, fontsize=10)
    _finish(axes, "change of top-1 accuracy (percentage points)")


def _finish(axes: Axes, label: str) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
