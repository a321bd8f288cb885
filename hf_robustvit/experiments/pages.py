"""What each experiment shows: tables and figures in OUT/<name>, and one page that holds them together."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hf_robustvit.evaluation.accuracy import outcomes
from hf_robustvit.evaluation.benchmark import BenchmarkData
from hf_robustvit.evaluation.comparison import pair_predictions
from hf_robustvit.evaluation.examples import choose_examples
from hf_robustvit.evaluation.images import BenchmarkImages, benchmark_image_processor
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.oracle import ForegroundImages, oracle_accuracy
from hf_robustvit.evaluation.per_class import class_changes, most_changed
from hf_robustvit.evaluation.results import replacing
from hf_robustvit.evaluation.sis import sufficient_input_subset
from hf_robustvit.evaluation.statistics import difference_interval
from hf_robustvit.experiments.paper import (
    OURS,
    OURS_UNANNOTATED,
    SEEDS,
    Experiment,
    choose_learning_rate,
)
from hf_robustvit.experiments.runs import Run, Workshop
from hf_robustvit.reporting.experiment_figures import (
    plot_class_groups,
    plot_learning_rates,
    plot_sensitivity,
    plot_subsets,
)
from hf_robustvit.reporting.experiment_tables import (
    Cell,
    accuracy_cells,
    average_changes,
    write_table,
)
from hf_robustvit.reporting.overlays import denormalize, example_overlays
from hf_robustvit.reporting.per_class import plot_class_changes
from hf_robustvit.reporting.tables import interval, markdown_table


NUM_EXAMPLES = 4
NUM_RANDOM_CLASSES = 5
CONFIDENT = 0.9
BACKGROUND_CENTRED = 0.5  # of the relevance outside the mask
STAR = (
    "A star marks a difference from the original that is significant (McNemar, Holm over the data sets); bold is best."
)
MAP_FIGURES = ["relevance_in_mask", "insertion", "deletion", "top1_grey_background", "top1_swapped_background"]


@dataclass(frozen=True)
class Book:
    """What the functions below write from.

    Attributes:
        name: The experiment's.
        experiment: Its description.
        workshop: Its finished runs.
        results: Their tidy results.
    """

    name: str
    experiment: Experiment
    workshop: Workshop
    results: pd.DataFrame

    @property
    def folder(self) -> Path:
        return self.workshop.root / self.name

    def figure(self, name: str, caption: str) -> str:
        """The Markdown that shows a figure of the folder."""
        return f"![{caption}]({name}.png)\n\n*{caption}*\n"


def write_page(book: Book) -> Path:
    """Write an experiment's tables, figures and page.

    Returns:
        The page's path, OUT/<name>/<name>.md.
    """
    book.folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {book.experiment.title}\n", SHOW[book.experiment.show](book), _maps_or_model(book)]
    page = book.folder / f"{book.name}.md"
    with replacing(page) as path:
        path.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return page


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
    cells = accuracy_cells(
        book.results, {"": suite.segmentation}, ["pixel_accuracy", "mean_iou", "mean_average_precision"]
    )
    caption = f"{book.experiment.title}, percent. A star: the paired-bootstrap interval of the difference excludes 0."
    return write_table(book.folder / book.name, cells, caption)


def accuracy_tables(book: Book) -> str:
    """Tab. 4 and 12: top-1, then top-5, of every way to fine-tune on all benchmarks."""
    tables = []
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        cells = accuracy_cells(book.results, book.workshop.suite.benchmarks, [figure])
        caption = f"{book.experiment.title}. {title} accuracy, percent. {STAR}"
        tables.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
    return "\n".join(tables)


def seed_tables(book: Book) -> str:
    """Tab. 8 and 9: mean and standard deviation over the seeds."""
    suite, tables = book.workshop.suite, []
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        shown = book.results[(book.results["figure"] == figure) & (book.results["classes"] == "all")]
        rows = {}
        for (model, is_seed), group in shown.groupby(["model", shown["seed"].notna()], sort=False):
            values = group.groupby("dataset")["value"].agg(["mean", "std"])
            rows[model, OURS.label if is_seed else "Original"] = [
                Cell(f"{mean:.1f}±{std:.1f}" if is_seed else f"{mean:.1f}")
                for mean, std in values.loc[list(suite.benchmarks.values())].to_numpy()
            ]
        cells = pd.DataFrame.from_dict(rows, orient="index", columns=list(suite.benchmarks))
        cells.index = pd.MultiIndex.from_tuples(cells.index, names=["model", "method"])
        caption = (
            f"{book.experiment.title}. {title} accuracy, percent: mean and standard deviation over the class seeds "
            f"{', '.join(map(str, SEEDS))}."
        )
        tables.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
    return "\n".join(tables)


def class_groups(book: Book) -> str:
    """Tab. 10 and 11 and Fig. 4: training and held-out classes apart."""
    suite, parts = book.workshop.suite, []
    groups = book.results[book.results["classes"].isin(["training", "held-out"])]
    titles = {name: title for title, name in suite.benchmarks.items()}
    groups = groups[groups["dataset"].isin(titles)].assign(dataset=lambda rows: rows["dataset"].map(titles))
    for figure, title in (("top1", "Top-1"), ("top5", "Top-5")):
        shown = groups[groups["figure"] == figure]
        rows = {}
        for (model, classes), group in shown.groupby(["model", "classes"], sort=False):
            by_dataset = group.set_index("dataset").reindex(suite.benchmarks)
            for method, column in (("Original", "original"), (OURS.label, "value")):
                rows[model, classes, method] = [
                    Cell(is_significant=method == OURS.label and row.significant is True, text=f"{row[column]:.1f}")
                    if row[column] == row[column]
                    else Cell()
                    for _, row in by_dataset.iterrows()
                ]
        changes = (
            shown.groupby(["classes", "dataset"], sort=False)["difference"]
            .mean()
            .unstack()
            .reindex(columns=suite.benchmarks)
        )
        for classes, row in changes.iterrows():
            rows["Avg. change", classes, OURS.label] = [
                Cell(f"{change:+.1f}") if change == change else Cell() for change in row
            ]
        cells = pd.DataFrame.from_dict(rows, orient="index", columns=list(suite.benchmarks))
        cells.index = pd.MultiIndex.from_tuples(cells.index, names=["model", "classes", "method"])
        caption = f"{book.experiment.title}. {title} accuracy, percent. {STAR}"
        parts.append(write_table(book.folder / f"{book.name}-{figure}", cells, caption))
        means = shown.groupby(["dataset", "classes"], sort=False)[["difference", "low", "high"]].mean().reset_index()
        # Of several models the interval of the mean is narrower than the mean interval: by the root of their number.
        narrow = 1 / np.sqrt(shown["model"].nunique())
        for end in ("low", "high"):
            means[end] = means["difference"] + (means[end] - means["difference"]) * narrow
        caption = f"Mean change of {title.lower()} accuracy on the two halves of the classes, with 95 % intervals"
        plot_class_groups(
            means.rename(columns={"difference": "change"}), caption, book.folder / f"{book.name}-{figure}"
        )
        parts.append(book.figure(f"{book.name}-{figure}", caption))
    return "\n".join(parts)


def sensitivity(book: Book) -> str:
    """Fig. 7: more samples per class, more classes."""
    titles = {name: title for title, name in book.workshop.suite.benchmarks.items()}
    shown = book.results[(book.results["figure"] == "top1") & (book.results["classes"] == "all")]
    shown = shown[shown["dataset"].isin(titles) & shown["difference"].notna()]
    shown = shown.assign(
        dataset=shown["dataset"].map(titles),
        change=shown["difference"],
        quantity=shown["method"].str.extract(r"^(\d+)")[0].astype(int),
    )
    quantities = ("samples per class", "classes")
    panels = [(name, shown[shown["method"].str.fullmatch(rf"\d+ {name}")]) for name in quantities]
    caption = "Change of top-1 accuracy over the size of the training set, with paired 95 % intervals"
    plot_sensitivity(panels, "", book.folder / book.name)
    return book.figure(book.name, caption) + "\n" + accuracy_tables(book)


def learning_rates(book: Book) -> str:
    """Section 4: what each learning rate does to the validation images, and the one that the rule takes."""
    parts = []
    for model in dict.fromkeys(model for model, _, _ in book.experiment.rows(book.workshop.suite)):
        rows = [(recipe, run) for name, recipe, run in book.experiment.rows(book.workshop.suite) if name == model]
        rates = [recipe.settings["learning_rate"] for recipe, _ in rows]
        before, after = ([book.workshop.validation(run)[when] for _, run in rows] for when in ("before", "after"))
        chosen = choose_learning_rate(rates, before, after)
        figures = pd.DataFrame(
            {
                "rate": rates,
                "accuracy_change": [
                    100 * (b["eval_accuracy"] - a["eval_accuracy"]) for a, b in zip(before, after, strict=True)
                ],
                "loss_change": [
                    b["eval_classification_loss"] - a["eval_classification_loss"]
                    for a, b in zip(before, after, strict=True)
                ],
                "relevance_in_mask": [100 * b["eval_relevance_in_mask"] for b in after],
            }
        )
        stem = book.folder / f"{book.name}-{model}"
        title = f"{model}: the highest rate that loses at most 2 points and does not raise the loss"
        plot_learning_rates(figures, chosen, title, stem)
        with replacing(stem.with_suffix(".csv")) as path:
            figures.to_csv(path, index=False)
        header = ["rate", "accuracy, change", "classification loss, change", "relevance in mask", ""]
        lines = [
            [
                f"{row.rate:g}",
                f"{row.accuracy_change:+.2f}",
                f"{row.loss_change:+.4f}",
                f"{row.relevance_in_mask:.1f}",
                "chosen" if row.rate == chosen else "",
            ]
            for row in figures.itertuples()
        ]
        sentence = f"{model}: the rule takes {chosen:g}." if chosen else f"{model}: no rate of the grid fits the rule."
        parts.append(f"{sentence}\n\n{markdown_table(header, lines)}\n\n{book.figure(stem.name, title)}")
    return "\n".join(parts)


def per_class(book: Book) -> str:
    """Fig. 8-14: which classes gain and which lose, benchmark by benchmark."""
    parts = []
    ((model, run),) = {
        (model, run) for model, recipe, run in book.experiment.rows(book.workshop.suite) if recipe is OURS
    }
    for title, name in book.workshop.suite.benchmarks.items():
        improved, harmed = most_changed(class_changes(*_paired(book, run, name)))
        caption = f"{model} on {title}: change of top-1 accuracy by class, at most 50 of each kind"
        for ending in ("png", "pdf"):
            with replacing(book.folder / f"{name}.{ending}") as path:
                plot_class_changes(improved, harmed, title, path)
        parts.append(book.figure(name, caption))
    return "\n".join(parts)


def examples(book: Book) -> str:
    """Fig. 1: maps on the background; Fig. 2, 3 and 6: kept, corrected and broken; Fig. 15: the most harmed classes."""
    suite, parts = book.workshop.suite, []
    for model, recipe, run in book.experiment.rows(suite):
        if recipe is not OURS:
            continue
        originals = Run.of(run.model, None)
        checkpoints = {"original": book.workshop.checkpoint(originals), "fine-tuned": book.workshop.checkpoint(run)}

        def draw(
            benchmark: str, image_ids: list[str], kind: str, rule: str, model=model, checkpoints=checkpoints
        ) -> None:
            if not image_ids:
                parts.append(f"{model}, {benchmark}, {kind}: no such image.\n")
                return
            data = _rows_of(book.workshop.benchmark(benchmark, checkpoints["original"]), image_ids)
            stem = f"{model}-{benchmark}-{kind}"
            for ending in ("png", "pdf"):
                example_overlays(book.folder / f"{stem}.{ending}", data, checkpoints)
            parts.append(book.figure(stem, f"{model}, {benchmark}, {kind}: {rule}"))

        first = "the first image of each class, in the data set's order"
        for name in suite.benchmarks.values():
            kinds = (
                ("same", "corrected", "broken") if name == next(iter(suite.benchmarks.values())) else ("corrected",)
            )
            before, after = _paired(book, run, name)
            for kind in kinds:
                draw(name, choose_examples(before, after, kind, NUM_EXAMPLES), kind, first)
        for name in (suite.natural[title] for title in list(suite.natural) if title in suite.harmed_shown):
            before, after = _paired(book, run, name)
            _, harmed = most_changed(class_changes(before, after), count=2)
            broken = choose_examples(before, after, "broken", len(after))
            classes = after["class_name"]
            chosen = [i for c in harmed["class_name"] for i in [i for i in broken if classes[i] == c][:3]]
            draw(name, chosen, "most-harmed", "the first three broken images of the two classes most harmed")
        predictions = book.workshop.predictions(originals, suite.segmentation)
        draw(suite.segmentation, _salient_issues(predictions), "salient-issues", SALIENT_RULE)
    return "\n".join(parts)


SALIENT_RULE = (
    f"the {NUM_EXAMPLES} images with the least relevance in the mask among those that the original is sure of "
    f"(confidence of {CONFIDENT:.0%} or more)"
)


def _salient_issues(predictions: pd.DataFrame) -> list[str]:
    """Fig. 1's issue of background-centred relevance, by `SALIENT_RULE`."""
    confident = np.stack(predictions["top5_probabilities"])[:, 0] >= CONFIDENT
    worst = predictions[confident].sort_values("relevance_in_mask", kind="stable")
    return worst["image_id"].head(NUM_EXAMPLES).tolist()


def sis(book: Book) -> str:
    """Fig. 5: for a few images, the pixels that are enough for the predicted class and for classes drawn at random."""
    suite = book.workshop.suite
    ((model, run),) = {(model, run) for model, _, run in book.experiment.rows(suite)}
    checkpoint = book.workshop.checkpoint(run)
    data = book.workshop.benchmark(next(iter(suite.benchmarks.values())), checkpoint)
    rows = data.rows.select(np.linspace(0, len(data.rows) - 1, NUM_EXAMPLES, dtype=int))
    processor = benchmark_image_processor("checkpoint", checkpoint.image_processor, checkpoint.model.config)
    images = [BenchmarkImages(rows, processor)[row]["pixel_values"] for row in range(len(rows))]
    names = checkpoint.model.config.id2label
    random_classes = np.random.default_rng(0).choice(len(names), NUM_RANDOM_CLASSES, replace=False).tolist()
    titles, subsets, lines = [], [], []
    for pixel_values in images:
        with torch.no_grad():
            probabilities = checkpoint.model(pixel_values[None]).logits.softmax(dim=1)[0]
        predicted = int(probabilities.argmax())
        titles.append(f"{names[predicted]} {probabilities[predicted]:.0%}")
        found = []
        for target in (predicted, *random_classes):
            subset = sufficient_input_subset(checkpoint.model, pixel_values, target, CONFIDENT)
            share = float(subset.mask.float().mean())
            found.append((f"{names[target]} {subset.confidence:.0%}", np.asarray(subset.mask)))
            lines.append([titles[-1], names[target], f"{100 * subset.confidence:.1f}", f"{100 * share:.1f}"])
        subsets.append(found)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    plot_subsets(denormalize(torch.stack(images), mean, std), titles, subsets, book.folder / book.name)
    rule = f"images that part {data.name} equally; the predicted class, then {NUM_RANDOM_CLASSES} drawn with seed 0"
    caption = f"{model}: pixels that are enough for a class ({rule})"
    table = markdown_table(["image", "class", "confidence, %", "pixels kept, %"], lines)
    return f"{book.figure(book.name, caption)}\n{table}\n"


def oracle(book: Book) -> str:
    """What a perfect map could gain, on every benchmark with masks: a test of headroom before any fine-tuning."""
    suite, rows = book.workshop.suite, []
    options = LoopOptions(suite.eval_batch_size, suite.num_workers)
    for model, _, run in book.experiment.rows(suite):
        checkpoint = book.workshop.checkpoint(run)
        processor = benchmark_image_processor("checkpoint", checkpoint.image_processor, checkpoint.model.config)
        for name in suite.with_masks:
            data = book.workshop.benchmark(name, checkpoint)
            images = ForegroundImages(data.rows, processor, with_masks=True)
            labels = np.asarray(data.rows["label"][:])
            frame = oracle_accuracy(
                checkpoint, images, labels, data.label_space, options, book.workshop.accelerator, f"{model}, {name}"
            )
            predictions = book.workshop.predictions(run, name).set_index("image_id").loc[frame["image_id"]]
            plain, with_oracle = outcomes(predictions)["top1"].to_numpy(), frame["top1_oracle"].to_numpy()
            ends = [100 * end for end in difference_interval(plain, with_oracle)]
            gain = 100 * (with_oracle.mean() - plain.mean())
            rows.append(
                [
                    model,
                    name,
                    len(frame),
                    f"{100 * plain.mean():.1f}",
                    f"{100 * with_oracle.mean():.1f}",
                    f"{gain:+.1f}",
                    interval(ends),
                ]
            )
    header = ["model", "data set", "n", "top-1", "top-1 with the oracle", "headroom", "95 % interval"]
    with replacing(book.folder / f"{book.name}.csv") as path:
        pd.DataFrame(rows, columns=header).to_csv(path, index=False)
    text = (
        "The oracle forbids the CLS token, in every layer, to attend to patches without the object: a perfect map by "
        "force. Where it gains nothing, a loss on the map has little to gain either.\n"
    )
    return f"{text}\n{markdown_table(header, rows)}\n"


def _maps_or_model(book: Book) -> str:
    """The section that every page with fine-tuned models has."""
    figures = [name for name in MAP_FIGURES if (book.results["figure"] == name).any()]
    if not figures or not book.results["difference"].notna().any():
        return ""
    cells = accuracy_cells(book.results, {"": book.workshop.suite.segmentation}, figures)
    caption = (
        f"On {book.workshop.suite.segmentation}, percent. Relevance in the mask tells whether the map changed; the "
        "other columns whether the model did: the areas under the insertion curve (more is better) and the deletion "
        "curve (less is better), and the accuracy without the true background. A star marks a significant difference."
    )
    table = write_table(book.folder / f"{book.name}-maps-or-model", cells, caption)
    return f"## Did the model change, or only its map?\n\n{table}"


def _paired(book: Book, run: Run, benchmark: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    original = Run.of(run.model, None)
    return pair_predictions(benchmark, *(book.workshop.predictions(each, benchmark) for each in (original, run)))


def _rows_of(data: BenchmarkData, image_ids: list[str]) -> BenchmarkData:
    position = {image_id: row for row, image_id in enumerate(data.rows["image_id"])}
    return replace(data, rows=data.rows.select([position[image_id] for image_id in image_ids]))


SHOW = {
    function.__name__: function
    for function in (
        *(natural_table, synthetic_table, segmentation_table, accuracy_tables, seed_tables, class_groups),
        *(sensitivity, learning_rates, per_class, examples, sis, oracle),
    )
}
