"""The paper's tables."""

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.figures import CHANGE_FIGURES, SEGMENTATION_FIGURES
from hf_robustvit.evaluation.statistics import bootstrap_interval, object_groups
from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.recipes import OURS, OURS_UNANNOTATED, SEEDS, without_seed
from hf_robustvit.files import replacing
from hf_robustvit.reporting.plots import plot_class_groups, plot_sensitivity, save_figure
from hf_robustvit.reporting.tables import (
    Cell,
    accuracy_cells,
    average_changes,
    cell_table,
    oracle_table,
    titled,
    write_table,
)


STAR = (
    "A star marks a difference from the original that is significant (McNemar or, where images show the same object, "
    "sign flips of whole objects; Holm over the data sets); bold is best."
)


def natural_table(book: Book) -> str:
    """Tab. 1: top-1 and top-5 on the natural benchmarks, and the mean change over the models."""
    return _robustness_table(book, book.workshop.suite.natural, with_changes=False)


def synthetic_table(book: Book) -> str:
    """Tab. 2: the same on SI-Score, with the changes in brackets."""
    return _robustness_table(book, book.workshop.suite.synthetic, with_changes=True)


def _robustness_table(book: Book, datasets: dict[str, str], with_changes: bool) -> str:
    figures = ["top1", "top5"]
    cells = accuracy_cells(book.results, datasets, figures, with_changes)
    methods = [OURS.label, OURS_UNANNOTATED.label]
    cells = pd.concat([cells, average_changes(book.results, datasets, figures, methods)])
    return write_table(book.folder / book.name, cells, f"{book.experiment.title}, percent. {STAR}")


def segmentation_table(book: Book) -> str:
    """Tab. 3: the maps against the masks."""
    suite = book.workshop.suite
    cells = accuracy_cells(book.results, {"": suite.segmentation}, [*SEGMENTATION_FIGURES])
    caption = (
        f"{book.experiment.title}, percent. A star: the paired-bootstrap interval of the difference, of whole objects "
        "where images show the same one, excludes 0, and at least six images or objects changed."
    )
    return write_table(book.folder / book.name, cells, caption)


def accuracy_tables(book: Book) -> str:
    """Tab. 4 and 12: top-1, then top-5, of every way to fine-tune on all benchmarks; and the changes of top-1."""
    tables = []
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        cells = accuracy_cells(book.results, book.workshop.suite.benchmarks, [figure])
        caption = f"{book.experiment.title}. {title} accuracy, percent. {STAR}"
        tables.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
    tables.append(change_table(book))
    return "\n".join(tables)


def change_table(book: Book) -> str:
    """What each way to fine-tune changes in top-1, with intervals."""
    shown = titled(book.results, book.workshop.suite.benchmarks, ["top1"]).dropna(subset="difference")
    shown["cell"] = [
        Cell(f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]", is_significant=row.significant is True)
        for row in shown.itertuples()
    ]
    cells = cell_table(shown, ["model", "method"], book.workshop.suite.benchmarks, ["top1"])
    caption = f"{book.experiment.title}. Change of top-1 accuracy in points, with paired 95 % intervals. {STAR}"
    return write_table(book.folder / f"{book.name}-changes", cells, caption)


def seed_tables(book: Book) -> str:
    """Tab. 8 and 9: mean and standard deviation over the seeds."""
    benchmarks, tables = book.workshop.suite.benchmarks, []
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        shown = titled(book.results, benchmarks, [figure])
        shown["method"] = shown["method"].map(without_seed)
        keys = ["model", "method", "dataset", "figure"]
        values = shown.groupby(keys, sort=False, as_index=False)["value"].agg(["mean", "std"])
        values["cell"] = [
            Cell(f"{row.mean:.1f}" if np.isnan(row.std) else f"{row.mean:.1f}±{row.std:.1f}")
            for row in values.itertuples()
        ]
        cells = cell_table(values, ["model", "method"], benchmarks, [figure])
        caption = (
            f"{book.experiment.title}. {title} accuracy, percent: mean and standard deviation over the class seeds "
            f"{', '.join(map(str, SEEDS))}."
        )
        tables.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
    return "\n".join(tables)


def class_groups(book: Book) -> str:
    """Tab. 10 and 11 and Fig. 4: training and held-out classes apart."""
    benchmarks, parts = book.workshop.suite.benchmarks, []
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        shown = titled(book.results, benchmarks, [figure], ("training", "held-out"))
        before = shown.assign(method="Original", cell=[Cell(f"{value:.1f}") for value in shown["original"]])
        cells = [Cell(f"{row.value:.1f}", is_significant=row.significant is True) for row in shown.itertuples()]
        both = pd.concat([before, shown.assign(method=OURS.label, cell=cells)]).sort_index(kind="stable")
        changes = shown.groupby(["classes", "dataset", "figure"], sort=False, as_index=False)["difference"].mean()
        changes = changes.assign(model="Avg. change", method=OURS.label)
        changes["cell"] = [Cell(f"{change:+.1f}") for change in changes["difference"]]
        cells = cell_table(pd.concat([both, changes]), ["model", "classes", "method"], benchmarks, [figure])
        caption = f"{book.experiment.title}. {title} accuracy, percent. {STAR}"
        parts.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
        means = shown.groupby(["dataset", "classes"], sort=False)[["difference", "low", "high"]].mean().reset_index()
        if shown["model"].nunique() > 1:  # one model has its interval already
            for row, mean in means.iterrows():
                means.loc[row, ["low", "high"]] = mean_change_interval(
                    book, benchmarks[mean["dataset"]], figure, is_training=mean["classes"] == "training"
                )
        caption = f"Mean change of {title.lower()} accuracy on the two halves of the classes, with 95 % intervals"
        plot = plot_class_groups(means.rename(columns={"difference": "change"}), caption)
        save_figure(plot, book.folder / f"{book.name}-{figure}")
        parts.append(book.figure(f"{book.name}-{figure}", caption))
    return "\n".join(parts)


def mean_change_interval(book: Book, benchmark: str, figure: str, is_training: bool) -> list[float]:
    """The 95 % interval of the models' mean change, in points.

    The models' errors are not independent, since they see the same images: these, or the
    objects they show, are resampled for all models at once.
    """
    changes, frames = [], []
    for _, _, run in book.experiment.rows(book.workshop.suite):
        if not run.is_original:
            before, after = book.paired_predictions(run, benchmark)
            correct_before, correct_after = (outcomes(frame)[figure].astype(float) for frame in (before, after))
            frames.append(after[after["training_class"] == is_training])
            changes.append((correct_after - correct_before)[frames[-1].index])
    per_image = pd.concat(changes, axis=1).mean(axis=1)  # the mean over the models
    rows = pd.concat(frames)
    groups = object_groups(rows[~rows.index.duplicated()].loc[per_image.index])
    return [100 * bound for bound in bootstrap_interval(np.mean, per_image.to_numpy(), groups)]


def sensitivity(book: Book) -> str:
    """Fig. 7: more samples per class, more classes."""
    shown = titled(book.results, book.workshop.suite.benchmarks, ["top1"]).dropna(subset="difference")
    shown = shown.assign(change=shown["difference"], quantity=shown["method"].str.extract(r"^(\d+)")[0].astype(int))
    quantities = ("samples per class", "classes")
    panels = [(name, shown[shown["method"].str.fullmatch(rf"\d+ {name}")]) for name in quantities]
    caption = "Change of top-1 accuracy over the size of the training set, with paired 95 % intervals"
    save_figure(plot_sensitivity(panels), book.folder / book.name)
    return book.figure(book.name, caption) + "\n" + accuracy_tables(book)


def oracle(book: Book) -> str:
    """What a perfect map could gain, on every benchmark with masks: a test of headroom before any fine-tuning."""
    suite, parts, rows = book.workshop.suite, [], []
    for model, _, run in book.experiment.rows(suite):
        results = [book.workshop.result(run, name) for name in suite.with_masks]
        parts.append(f"{model}:\n\n{oracle_table(results)}\n")
        names = ("dataset", "num_images", "top1", "top1_oracle", "oracle_headroom_ci95")
        rows += [{"model": model} | {name: getattr(result, name) for name in names} for result in results]
    with replacing(book.folder / f"{book.name}.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    text = (
        "The oracle forbids the CLS token, in every layer, to attend to patches without the object: a perfect map by "
        "force. Where it gains nothing, a loss on the map has little to gain either.\n"
    )
    return "\n".join([text, *parts])


def maps_or_model(book: Book) -> str:
    """The section that every page with fine-tuned models has."""
    results = book.results[book.results["dataset"] == book.workshop.suite.segmentation]
    figures = [name for name in CHANGE_FIGURES if (results["figure"] == name).any()]
    if not figures or not results["difference"].notna().any():
        return ""
    cells = accuracy_cells(results, {"": book.workshop.suite.segmentation}, figures)
    caption = (
        f"On {book.workshop.suite.segmentation}, percent. Relevance in the mask tells whether the map changed; the "
        "other columns whether the model did: the areas under the insertion curve (more is better) and the deletion "
        "curve (less is better), and the accuracy without the true background. A star marks a significant difference."
    )
    table = write_table(book.folder / f"{book.name}-maps-or-model", cells, caption)
    return f"## Did the model change, or only its map?\n\n{table}"
