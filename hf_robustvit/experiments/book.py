"""An experiment: its description, and the book it is written up from when its runs are finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hf_robustvit.evaluation.comparison import pair_predictions
from hf_robustvit.experiments.recipes import Recipe
from hf_robustvit.experiments.runs import Run, Workshop
from hf_robustvit.experiments.suites import Suite


@dataclass(frozen=True)
class Experiment:
    """One entry of the list.

    Attributes:
        title: What it shows, and where the paper shows it.
        recipes: What is done to each model.
        show: Writes its tables and figures, and gives the Markdown that shows them.
        models: Which of the suite's models, by their short names; all if None.
        benchmarks: Which of the suite's benchmarks the runs are scored on.
    """

    title: str
    recipes: Callable[[Suite], Sequence[Recipe]]
    show: Callable[["Book"], str]
    models: Callable[[Suite], Sequence[str]] | None = None
    benchmarks: Callable[[Suite], Sequence[str]] = lambda suite: [*suite.benchmarks.values(), suite.segmentation]

    def rows(self, suite: Suite) -> list[tuple[str, Recipe, Run]]:
        """(short name of the model, recipe, run) for every row, models together."""
        names = self.models(suite) if self.models else suite.models
        made = [
            (name, recipe, recipe.run(suite, suite.models[name])) for name in names for recipe in self.recipes(suite)
        ]
        return [row for row in made if row[2] is not None]


@dataclass(frozen=True)
class Book:
    """What an experiment is written up from.

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

    def paired_predictions(self, run: Run, benchmark: str) -> list[pd.DataFrame]:
        """The predictions of the original model and of a run about the same images."""
        original = Run.of(run.model, None)
        return pair_predictions(benchmark, *(self.workshop.predictions(each, benchmark) for each in (original, run)))
