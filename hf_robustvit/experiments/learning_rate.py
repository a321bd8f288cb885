"""The search for the learning rate (paper section 4)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from hf_robustvit.experiments.book import Book
from hf_robustvit.files import replacing
from hf_robustvit.reporting.plots import plot_learning_rates, save_figure
from hf_robustvit.reporting.tables import markdown_table


def choose_learning_rate(
    rates: Sequence[float],
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    tolerance: float = 2.0,
) -> float | None:
    """Section 4's rule of thumb: the highest rate at which little is lost on the validation images.

    Args:
        rates: The learning rates that were tried.
        before: For each, the validation figures before fine-tuning: `eval_accuracy` in [0, 1] and
            `eval_classification_loss`.
        after: The same after it.
        tolerance: Percentage points that the accuracy may fall by; the paper says 2 to 3.

    Returns:
        The highest rate whose accuracy falls by at most `tolerance` and whose classification loss does not rise; None
        if there is none.
    """
    kept = [
        rate
        for rate, first, last in zip(rates, before, after, strict=True)
        if round(100 * (first["eval_accuracy"] - last["eval_accuracy"]), 9) <= tolerance  # 0.80 - 0.77 is above 0.03
        and last["eval_classification_loss"] <= first["eval_classification_loss"]
    ]
    return max(kept, default=None)


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
                    100 * (last["eval_accuracy"] - first["eval_accuracy"])
                    for first, last in zip(before, after, strict=True)
                ],
                "loss_change": [
                    last["eval_classification_loss"] - first["eval_classification_loss"]
                    for first, last in zip(before, after, strict=True)
                ],
                "relevance_in_mask": [100 * last["eval_relevance_in_mask"] for last in after],
            }
        )
        stem = book.folder / f"{book.name}-{model}".replace("/", "-")
        title = f"{model}: the highest rate that loses at most 2 points and does not raise the loss"
        save_figure(plot_learning_rates(figures, chosen, title), stem)
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
        if chosen == max(rates):
            sentence += " It is the highest that was tried; a higher one may fit too."
        parts.append(f"{sentence}\n\n{markdown_table(header, lines)}\n\n{book.figure(stem.name, title)}")
    return "\n".join(parts)
