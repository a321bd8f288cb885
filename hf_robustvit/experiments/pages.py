"""From names of experiments to the runs they need, tidy results and pages."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from hf_robustvit.experiments.book import Book, Experiment
from hf_robustvit.experiments.results import COLUMNS, tidy_results
from hf_robustvit.experiments.runs import Run, Workshop
from hf_robustvit.experiments.suites import Suite
from hf_robustvit.experiments.tables import maps_or_model
from hf_robustvit.files import replacing


def needed_runs(experiments: Mapping[str, Experiment], suite: Suite) -> dict[Run, list[str]]:
    """Every run that some experiment needs, and all the benchmarks that any of them needs it on."""
    needs: dict[Run, dict[str, None]] = {}
    for experiment in experiments.values():
        benchmarks = experiment.benchmarks(suite)
        for _, _, run in experiment.rows(suite):
            needs.setdefault(run, {}).update(dict.fromkeys(benchmarks))
            if benchmarks:  # what it is compared with
                needs.setdefault(Run.of(run.model, None), {}).update(dict.fromkeys(benchmarks))
            if run.share != 1:
                needs.setdefault(run.finetuned, {})
    return {run: list(benchmarks) for run, benchmarks in needs.items()}


def make_experiments(experiments: Mapping[str, Experiment], workshop: Workshop) -> None:
    """Make every run that some experiment needs."""
    workshop.make_all(needed_runs(experiments, workshop.suite))


def jobs(needs: Mapping[Run, list[str]]) -> list[dict[Run, list[str]]]:
    """The runs in parts that do not wait for each other: each with the interpolations of its weights."""
    parts: dict[Run, dict[Run, list[str]]] = {}
    for run, benchmarks in needs.items():
        parts.setdefault(run.finetuned, {})[run] = benchmarks
    return list(parts.values())


def show_experiments(experiments: Mapping[str, Experiment], workshop: Workshop) -> Iterator[Path]:
    """Write each experiment's page, and OUT/results.parquet with the results of all that were made in OUT so far.

    Yields:
        The pages' paths.
    """
    for name, experiment in experiments.items():
        results = tidy_results(name, experiment, workshop)
        (workshop.root / name).mkdir(parents=True, exist_ok=True)
        with replacing(workshop.root / name / "results.parquet") as path:
            results.to_parquet(path, index=False)
        yield _write_page(Book(name, experiment, workshop, results))
    parts = [pd.read_parquet(path) for path in sorted(workshop.root.glob("*/results.parquet"))]
    parts = [part.dropna(axis="columns", how="all") for part in parts]  # empty columns would decide types
    with replacing(workshop.root / "results.parquet") as path:
        pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS).to_parquet(path, index=False)


def _write_page(book: Book) -> Path:
    """Write an experiment's tables, figures and page.

    Returns:
        The page's path, OUT/<name>/<name>.md.
    """
    book.folder.mkdir(parents=True, exist_ok=True)
    images = book.results.groupby("dataset", sort=False)["n"].max().items()
    scored = ", ".join(f"{name} ({count} images)" for name, count in images)
    parts = [f"# {book.experiment.title}\n", f"Scored on {scored}.\n" if scored else ""]
    parts += [book.experiment.show(book), maps_or_model(book)]
    page = book.folder / f"{book.name}.md"
    with replacing(page) as path:
        path.write_text("\n".join(part for part in parts if part), encoding="utf-8")
    return page
