"""Ways to fine-tune against each other, over the seeds: the recipe and its rivals, one map and the others."""

from collections import defaultdict
from collections.abc import Sequence

from hf_robustvit.evaluation.comparison import pair_predictions
from hf_robustvit.experiments.book import Book
from hf_robustvit.experiments.means import CHANGES, change_cells, mean_changes
from hf_robustvit.experiments.recipes import without_seed
from hf_robustvit.experiments.runs import Run
from hf_robustvit.experiments.tables import accuracy_tables
from hf_robustvit.reporting.tables import markdown_table


def contest(book: Book, comparisons: Sequence[tuple[str, str]]) -> str:
    """The mean changes of each row from the original, those of one row from another, and all accuracies.

    Args:
        book: The experiment's.
        comparisons: Labels of rows that have the same seeds: the first one's change from the second is shown.
    """
    suite, parts = book.workshop.suite, []
    header = [name.replace("_", " ") for name in CHANGES]
    rows = book.experiment.rows(suite)
    for model in dict.fromkeys(name for name, _, _ in rows):
        runs: dict[str, list[Run]] = defaultdict(list)  # of all seeds
        for name, recipe, run in rows:
            if name == model:
                runs[without_seed(recipe.label)].append(run)
        original, *others = runs
        changes = [[label, *_changes(book, runs[original] * len(runs[label]), runs[label])] for label in others]
        parts.append(f"{model}: change from the original.\n\n{markdown_table(['', *header], changes)}\n")
        against = [[f"{one} minus {other}", *_changes(book, runs[other], runs[one])] for one, other in comparisons]
        parts.append(f"{model}: one row minus another, seed by seed.\n\n{markdown_table(['', *header], against)}\n")
    text = (
        "Change of top-1 accuracy in points, the mean over the natural data sets and that over the synthetic ones, "
        "each data set counting alike; over the seeds where there are several. The paired 95 % intervals keep whole "
        "objects and the seeds together.\n"
    )
    return "\n".join([text, *parts, accuracy_tables(book)])


def _changes(book: Book, before: list[Run], after: list[Run]) -> list[str]:
    workshop = book.workshop
    pairs = {
        benchmark: [
            pair_predictions(benchmark, *(workshop.predictions(run, benchmark) for run in two))
            for two in zip(before, after, strict=True)
        ]
        for benchmark in workshop.suite.benchmarks.values()
    }
    return change_cells(mean_changes(pairs, workshop.suite))
