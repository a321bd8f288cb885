"""The paper's figures of single images and classes."""

import numpy as np
import pandas as pd
import torch

from hf_robustvit.evaluation.examples import choose_examples, evenly_spaced
from hf_robustvit.evaluation.per_class import class_changes, most_changed
from hf_robustvit.evaluation.pictures import denormalize, explain_rows
from hf_robustvit.evaluation.sis import sufficient_input_subset
from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.recipes import OURS
from hf_robustvit.experiments.runs import Run
from hf_robustvit.reporting.pictures import overlay_grid
from hf_robustvit.reporting.plots import plot_class_changes, plot_subsets, save_figure
from hf_robustvit.reporting.tables import markdown_table


NUM_EXAMPLES = 4
NUM_RANDOM_CLASSES = 5
SHARE_PER_STEP = 0.05  # of the pixels that are left
CONFIDENT = 0.9
SALIENT_RULE = (
    f"the {NUM_EXAMPLES} images with the least relevance in the mask among those that the original is sure of "
    f"(confidence of {CONFIDENT:.0%} or more)"
)


def per_class(book: Book) -> str:
    """Fig. 8-14: which classes gain and which lose, benchmark by benchmark."""
    parts = []
    rows = book.experiment.rows(book.workshop.suite)
    model, run = next((model, run) for model, recipe, run in rows if recipe == OURS)
    for title, name in book.workshop.suite.benchmarks.items():
        improved, harmed = most_changed(class_changes(*book.paired_predictions(run, name)))
        caption = f"{model} on {title}: change of top-1 accuracy by class, at most 50 of each kind"
        save_figure(plot_class_changes(improved, harmed, title), book.folder / name)
        parts.append(book.figure(name, caption))
    return "\n".join(parts)


def examples(book: Book) -> str:
    """Fig. 1: maps on the background; Fig. 2, 3, 6: kept, corrected and broken; Fig. 15: the most harmed classes."""
    suite, parts = book.workshop.suite, []
    for model, recipe, run in book.experiment.rows(suite):
        if recipe != OURS:
            continue
        originals = Run.of(run.model, None)
        checkpoints = {"original": book.workshop.checkpoint(originals), "fine-tuned": book.workshop.checkpoint(run)}

        def draw(
            benchmark: str, image_ids: list[str], kind: str, rule: str, model=model, checkpoints=checkpoints
        ) -> None:
            if not image_ids:
                parts.append(f"{model}, {benchmark}, {kind}: no such image.\n")
                return
            data = book.workshop.benchmark(benchmark, checkpoints["original"]).named(image_ids)
            stem = f"{model}-{benchmark}-{kind}".replace("/", "-")
            shown = explain_rows({title: (checkpoint, data) for title, checkpoint in checkpoints.items()})
            overlay_grid(shown, *(book.folder / f"{stem}.{ending}" for ending in ("png", "pdf")))
            parts.append(book.figure(stem, f"{model}, {benchmark}, {kind}: {rule}"))

        first = "the first image of each class, in the data set's order"
        for name in suite.benchmarks.values():
            kinds = (
                ("same", "corrected", "broken") if name == next(iter(suite.benchmarks.values())) else ("corrected",)
            )
            before, after = book.paired_predictions(run, name)
            for kind in kinds:
                draw(name, choose_examples(before, after, kind, NUM_EXAMPLES), kind, first)
        for name in (suite.natural[title] for title in list(suite.natural) if title in suite.harmed_shown):
            before, after = book.paired_predictions(run, name)
            _, harmed = most_changed(class_changes(before, after), count=2)
            broken = choose_examples(before, after, "broken", len(after))
            classes = after["class_name"]
            chosen = [i for c in harmed["class_name"] for i in [i for i in broken if classes[i] == c][:3]]
            draw(name, chosen, "most-harmed", "the first three broken images of the two classes most harmed")
        predictions = book.workshop.predictions(originals, suite.segmentation)
        draw(suite.segmentation, _salient_issues(predictions), "salient-issues", SALIENT_RULE)
    return "\n".join(parts)


def _salient_issues(predictions: pd.DataFrame) -> list[str]:
    """Fig. 1's issue of background-centred relevance, by `SALIENT_RULE`."""
    confident = np.stack(predictions["top5_probabilities"])[:, 0] >= CONFIDENT
    worst = predictions[confident].sort_values("relevance_in_mask", kind="stable")
    return worst["image_id"].head(NUM_EXAMPLES).tolist()


def sis(book: Book) -> str:
    """Fig. 5: for a few images, the pixels that are enough for the predicted class and for classes drawn at random."""
    suite = book.workshop.suite
    model, _, run = book.experiment.rows(suite)[0]
    checkpoint = book.workshop.checkpoint(run)
    data = book.workshop.benchmark(next(iter(suite.benchmarks.values())), checkpoint)
    images = data.images(checkpoint)
    images = [images[int(row)]["pixel_values"] for row in evenly_spaced(len(images), NUM_EXAMPLES)]
    names = checkpoint.model.config.id2label
    random_classes = (
        np.random.default_rng(0).choice(len(names), min(NUM_RANDOM_CLASSES, len(names)), replace=False).tolist()
    )
    titles, subsets, lines = [], [], []
    for pixel_values in images:
        with torch.no_grad():
            probabilities = checkpoint.model(pixel_values[None]).logits.softmax(dim=1)[0]
        predicted = int(probabilities.argmax())
        titles.append(f"{names[predicted]} {probabilities[predicted]:.0%}")
        found = []
        for target in (predicted, *random_classes):
            subset = sufficient_input_subset(checkpoint.model, pixel_values, target, CONFIDENT, SHARE_PER_STEP)
            share = float(subset.mask.float().mean())
            found.append((f"{names[target]} {subset.confidence:.0%}", np.asarray(subset.mask)))
            lines.append([titles[-1], names[target], f"{100 * subset.confidence:.1f}", f"{100 * share:.1f}"])
        subsets.append(found)
    shown = denormalize(torch.stack(images), checkpoint.image_processor)
    save_figure(plot_subsets(shown, titles, subsets), book.folder / book.name)
    rule = f"evenly spaced images of {data.name}; the predicted class, then {NUM_RANDOM_CLASSES} drawn with seed 0"
    caption = f"{model}: pixels that are enough for a class ({rule})"
    table = markdown_table(["image", "class", "confidence, %", "pixels kept, %"], lines)
    return f"{book.figure(book.name, caption)}\n{table}\n"
