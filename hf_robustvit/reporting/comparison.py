"""What an evaluation leaves beside the results: the comparison, the classes it moved, and one page to read."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from hf_robustvit.evaluation.combined import COMBINED, compare_combined
from hf_robustvit.evaluation.comparison import Difference, adjust, compare, pair_predictions
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, FAITHFULNESS_FIGURES, SEGMENTATION_FIGURES
from hf_robustvit.evaluation.per_class import Confusion, changed_confusion, class_changes, most_changed
from hf_robustvit.evaluation.results import BenchmarkResult, read_predictions
from hf_robustvit.evaluation.summaries import OFFICIAL
from hf_robustvit.files import replacing, write_text
from hf_robustvit.imagenet_classes import NAMES, WNIDS
from hf_robustvit.reporting.plots import plot_class_changes, plot_class_groups, save_figure
from hf_robustvit.reporting.tables import (
    class_changes_table,
    comparison_table,
    figures_table,
    intervals_note,
    lowest_classes_table,
    oracle_table,
    results_table,
    statistics_note,
)


BASELINE_FOLDER = "baseline"
CHANGE_NOTE = (
    "Fine-tuning by relevance moves the map by design: `relevance_in_mask`, the share of it on the object, only says "
    "that this worked. The model itself changed for the better if its top-1 with a greyed or swapped background rose "
    "too; and the map tells what the model decides by if `insertion` is high and `deletion` low (the mean probability "
    "of the class while its most relevant patches are put on an empty image, or taken from the whole one). Rules that "
    "it was not trained on should agree: `relevance_in_mask_rollout` and, with --faithfulness, "
    "`relevance_in_mask_occlusion`. Every figure is explained in "
    "https://github.com/hf-robustvit/hf-robustvit/blob/main/docs/evaluation.md."
)
LOWEST_NOTE = "The classes with the lowest top-1 of the model, in percent, among those of ten images or more."
CONFUSION_NOTE = (
    "The classes whose images, or guesses, changed most: a row for each true class, a column for each first guess, in "
    "numbers of images, before → after where they differ; all other classes are in the last column."
)
ORACLE_NOTE = (
    "Top-1 when the CLS token is forbidden to attend to the background: about what a perfect map could gain. Where "
    "the headroom's interval does not lie above 0, fine-tuning by relevance has little to offer on that data set."
)
READABLE = dict(zip(WNIDS, NAMES, strict=True))


def readable(class_name: str) -> str:
    """A class's name as people read it: ImageNet's identifiers become words."""
    return READABLE.get(class_name, class_name)


def write_comparison(
    output_dir: Path, results: Sequence[BenchmarkResult], baselines: Sequence[BenchmarkResult]
) -> list[Difference]:
    """Compare a model with its baseline on every data set.

    Writes `comparison.json`; `per_class/<dataset>.csv`, `.md` and `.png`; and, where the model records its training
    classes, `per_class/groups-top1.png` and `groups-top5.png`.

    Args:
        output_dir: Holds the model's files, and the baseline's in the folder `baseline`.
        results: Of the model.
        baselines: Of the baseline, on the same data sets.

    Returns:
        All differences, with Holm's adjustment made over these data sets.
    """
    differences = []
    for result in results:
        before, after = _paired(output_dir, result.dataset)
        differences += compare(result.dataset, before, after)
        if result.top1 is not None:
            _write_class_changes(output_dir / "per_class", result.dataset, class_changes(before, after))
    names = [result.dataset for result in results]
    differences += compare_combined(output_dir / BASELINE_FOLDER, output_dir, names)
    adjust(differences)

    comparison = {
        "model": results[0].model,
        "baseline": baselines[0].model,
        "differences": [asdict(difference) for difference in differences],
    }
    _write_text(output_dir / "comparison.json", json.dumps(comparison, indent=2))
    groups = pd.DataFrame([asdict(item) for item in differences if item.classes != "all"])
    if len(groups):
        groups[["low", "high"]] = groups["interval95"].tolist()
        for figure in ("top1", "top5"):
            shown = groups[groups["figure"] == figure].rename(columns={"difference": "change"})
            plot = plot_class_groups(shown, f"Change of {figure} on training and on held-out classes")
            save_figure(plot, output_dir / "per_class" / f"groups-{figure}", ".png")
    return differences


def changed_confusions(output_dir: Path, results: Sequence[BenchmarkResult]) -> dict[str, Confusion]:
    """Which classes are taken for which, by `changed_confusion`, on the data sets where any guess changed.

    Args:
        output_dir: Holds the model's files, and the baseline's in the folder `baseline`.
        results: Of the model.
    """
    names = [result.dataset for result in results if result.top1 is not None]
    return {name: found for name in names if (found := changed_confusion(*_paired(output_dir, name)))}


def headline_table(results: Sequence[BenchmarkResult], differences: Sequence[Difference]) -> str:
    """The table a run ends with: top-1 before and after and what a data set has of its own, or one model's figures."""
    if not differences:
        return results_table(results)
    figures = (
        "top1",
        *SEGMENTATION_FIGURES,
        *FAITHFULNESS_FIGURES,
        *OFFICIAL,
        *(combined.figure for combined in COMBINED),
    )
    return comparison_table(item for item in differences if item.classes == "all" and item.figure in figures)


def write_report(output_dir: Path, results: Sequence[BenchmarkResult], differences: Sequence[Difference]) -> None:
    """Write `results.md`: the model's figures, and every difference from the baseline if there is one."""
    notes = "Accuracies are percent, differences percentage points; a star marks what is significant. "
    notes += statistics_note(differences) if differences else intervals_note(results)
    parts = [f"# {results[0].model}", notes, headline_table(results, differences)]
    if differences:
        overall = [item for item in differences if item.classes == "all"]
        parts += [
            "## The model alone",
            intervals_note(results),
            results_table(results),
            "## All differences",
            comparison_table(overall),
        ]
    groups = [item for item in differences if item.classes != "all" and item.figure in ("top1", "top5")]
    if groups:
        parts += ["## Training and held-out classes", comparison_table(groups)]
    if lowest := lowest_classes_table(results, readable):
        parts += ["## Where it is right least often", LOWEST_NOTE, lowest]
    if any(getattr(result, name) is not None for result in results for name in CHANGE_FIGURES):
        moved = [item for item in differences if item.classes == "all" and item.figure in CHANGE_FIGURES]
        table = comparison_table(moved) if moved else figures_table(results, CHANGE_FIGURES)
        parts += ["## Did the model change, or only its map?", CHANGE_NOTE, table]
    if any(result.top1_oracle is not None for result in results):
        parts += ["## What a perfect map could gain", ORACLE_NOTE, oracle_table(results)]
    _write_text(output_dir / "results.md", "\n\n".join(parts))


def _paired(output_dir: Path, dataset: str) -> list[pd.DataFrame]:
    """The predictions of the baseline and of the model for the same images."""
    return pair_predictions(
        dataset, *(read_predictions(folder, dataset) for folder in (output_dir / BASELINE_FOLDER, output_dir))
    )


def _write_class_changes(folder: Path, dataset: str, changes: pd.DataFrame) -> None:
    changes["class_name"] = changes["class_name"].map(readable)
    improved, harmed = most_changed(changes)
    with replacing(folder / f"{dataset}.csv") as path:
        changes.to_csv(path, index=False)
    tables = ["## Most improved", class_changes_table(improved), "## Most harmed", class_changes_table(harmed)]
    _write_text(folder / f"{dataset}.md", "\n\n".join([f"# {dataset}: top-1 accuracy per class", *tables]))
    save_figure(plot_class_changes(improved, harmed, dataset), folder / dataset, ".png")


def _write_text(path: Path, text: str) -> None:
    write_text(path, text + "\n")
