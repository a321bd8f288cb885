"""Accuracies in `.eval_results`, where the Hub looks for what its leaderboards show; model-index is its older form."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from hf_robustvit.evaluation.figures import FIGURES
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.files import EVAL_RESULTS, write_text


def write_leaderboards(
    folder: Path, results: Iterable[BenchmarkResult], hub_ids: Mapping[str, str], outdated: Iterable[str]
) -> None:
    """Write a file for each data set that the Hub has; each accuracy is a task of its own, in percent.

    Args:
        folder: The model's folder.
        results: Of the model.
        hub_ids: Data set -> what the Hub calls it.
        outdated: Data sets whose files are of other weights, and are removed.
    """
    for name in outdated:
        (folder / EVAL_RESULTS / f"{name}.yaml").unlink(missing_ok=True)
    for result in (one for one in results if one.dataset in hub_ids):
        entries = [
            EvalResultEntry(
                dataset_id=hub_ids[result.dataset],
                task_id=f"{result.dataset}-{name}",
                value=round(getattr(result, name), 2),
                notes=figure.hub_name,
            )
            for name, figure in FIGURES.items()
            if figure.hub_name and getattr(result, name) is not None
        ]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        write_text(folder / EVAL_RESULTS / f"{result.dataset}.yaml", text)
