"""The figures of an experiment's runs as one tidy table, with what changed from the original model."""

import numpy as np
import pandas as pd

from hf_robustvit.evaluation.comparison import Difference, adjust, compare, pair_predictions
from hf_robustvit.evaluation.figures import FIGURES
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.experiments.book import Experiment
from hf_robustvit.experiments.recipes import Recipe
from hf_robustvit.experiments.runs import Run, Workshop


COLUMNS = [
    *("experiment", "model", "method", "seed", "dataset", "figure", "classes", "n", "value"),
    *("original", "difference", "low", "high", "p_holm", "significant", "run"),
]


def tidy_results(name: str, experiment: Experiment, workshop: Workshop) -> pd.DataFrame:
    """One row for each figure of each data set of each run.

    Args:
        name: The experiment's.
        experiment: Its description; its runs are finished.
        workshop: Where they are.

    Returns:
        `COLUMNS`: percent, and percentage points for `difference` from the original model with its paired 95 %
        interval `low` to `high`; `p_holm` and `significant` as in `comparison.Difference`, over the run's data sets.
        The last six but `run` are empty for the original model. `run` is the name of the run's folder.
    """
    rows = []
    for model, recipe, run in experiment.rows(workshop.suite):
        figures = _of_original(run, experiment, workshop) if run.is_original else _of_run(run, experiment, workshop)
        shared = {"experiment": name, "model": model, "method": recipe.label, "seed": _seed(recipe)}
        shared["run"] = workshop.folder(run).name
        rows += [shared | figure for figure in figures]
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_original(run: Run, experiment: Experiment, workshop: Workshop) -> list[dict]:
    results = [workshop.result(run, name) for name in experiment.benchmarks(workshop.suite)]
    return [
        {"dataset": result.dataset, "figure": figure, "classes": "all", "n": result.num_images, "value": value}
        for result in results
        for figure, value in _measurements(result).items()
    ]


def _measurements(result: BenchmarkResult) -> dict[str, float]:
    return {name: value for name in FIGURES if (value := getattr(result, name)) is not None}


def _of_run(run: Run, experiment: Experiment, workshop: Workshop) -> list[dict]:
    differences: list[Difference] = []
    for name in experiment.benchmarks(workshop.suite):
        before, after = (workshop.predictions(each, name) for each in (Run.of(run.model, None), run))
        differences += compare(name, *pair_predictions(name, before, after))
    adjust(differences)
    return [
        {
            "dataset": item.dataset,
            "figure": item.figure,
            "classes": item.classes,
            "n": item.n,
            "value": item.after,
            "original": item.before,
            "difference": item.difference,
            "low": item.interval95[0],
            "high": item.interval95[1],
            "p_holm": np.nan if item.p_holm is None else item.p_holm,
            "significant": item.significant,
        }
        for item in differences
    ]


def _seed(recipe: Recipe) -> float:
    seed = (recipe.settings or {}).get("class_seed")
    return np.nan if seed is None else float(seed)
