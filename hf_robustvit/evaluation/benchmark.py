"""One model over one benchmark: measurements, figures, files; what is finished is not run again."""

import logging
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from accelerate import Accelerator

from hf_robustvit.evaluation import ablations, accuracy, backgrounds, maps, spurious
from hf_robustvit.evaluation import faithfulness as faithfulness_test
from hf_robustvit.evaluation import oracle as oracle_test
from hf_robustvit.evaluation.accuracy import accuracies, outcomes
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.figures import figures_of_kind
from hf_robustvit.evaluation.images import Preprocessing
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.maps import map_figures
from hf_robustvit.evaluation.one_pass import measure
from hf_robustvit.evaluation.results import BenchmarkResult, finished_result, write_result
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun
from hf_robustvit.evaluation.statistics import difference_interval, object_groups
from hf_robustvit.evaluation.summaries import summary_figures


logger = logging.getLogger(__name__)

# What rows tell of an image beside its class; kept with the predictions, where the data set has it.
DESCRIPTION = (
    "object",
    "factor",
    "value",
    "area",
    "rotation",
    "x",
    "y",
    "background",
    "texture",
    "group",
    "group_weight",
)
#: Each tells whether it `applies` to a run, and gives the `measurement` that makes a column for each of its figures.
MEASUREMENTS = (accuracy, spurious, maps, faithfulness_test, backgrounds, ablations, oracle_test)


def evaluate_benchmark(
    checkpoint: Checkpoint,
    data: BenchmarkData,
    output_dir: Path,
    accelerator: Accelerator,
    options: LoopOptions,
    preprocessing: Preprocessing = "checkpoint",
    crop_border: int = 0,
    oracle: bool = False,
    faithfulness: bool = False,
    relevance_method: str = "gae",
) -> BenchmarkResult:
    """Evaluate a model on a benchmark and write `<name>.json` and `<name>.predictions.parquet`.

    A data set that the same weights have finished under the same protocol is read back instead.

    Args:
        checkpoint: The model.
        data: The benchmark.
        output_dir: Where the files go.
        accelerator, options, preprocessing, crop_border, oracle, faithfulness, relevance_method: As for
            `BenchmarkRun`.

    Raises:
        UserError: An image cannot be read and `options.skip_unreadable` is off, or none can be read.
    """
    asked = oracle, faithfulness, relevance_method
    run = BenchmarkRun(checkpoint, data, accelerator, options, preprocessing, crop_border, *asked)
    planned = BenchmarkResult(
        dataset=data.name,
        model=checkpoint.name,
        revision=checkpoint.revision,
        num_images=len(data.rows),
        protocol=run.protocol,
        weights=checkpoint.weights,
        data=data.content,
    )
    measurements = [each for each in MEASUREMENTS if each.applies(run)]
    stored = _finished(output_dir, planned, run)
    if stored:
        return stored

    checkpoint.model.to(accelerator.device).eval()
    measured = measure(run, *(each.measurement(run) for each in measurements))
    frame = _descriptions(data.rows).merge(measured, on="image_id", validate="one_to_one")
    readable = set(frame["image_id"])
    unreadable = [image_id for image_id in data.rows["image_id"] if image_id not in readable]
    result = replace(planned, num_images=len(frame), unreadable=unreadable, **_figures(run, frame))
    if accelerator.is_main_process:
        result = write_result(output_dir, result, frame)
    accelerator.wait_for_everyone()
    return result


def _descriptions(rows: datasets.Dataset) -> pd.DataFrame:
    """`image_id` and the columns of `DESCRIPTION` that there are; Cutouts has x and y in one."""
    names = [name for name in ("image_id", *DESCRIPTION, "location") if name in rows.column_names]
    frame = rows.select_columns(names).to_pandas()
    if "location" in frame:
        frame[["x", "y"]] = np.stack(frame.pop("location"))
    return frame


def _figures(run: BenchmarkRun, frame: pd.DataFrame) -> dict:
    """All figures of a result, from the rows of all its measurements."""
    figures = accuracies(frame) if accuracy.applies(run) else {}
    if maps.applies(run):
        figures |= map_figures(frame)
    figures |= {name: 100 * float(frame[name].mean()) for name in figures_of_kind("share") if name in frame}
    figures |= summary_figures(frame)
    groups = object_groups(frame)
    if oracle_test.applies(run):
        correct = outcomes(frame)
        interval = difference_interval(correct["top1"].to_numpy(), correct["top1_oracle"].to_numpy(), groups)
        figures["oracle_headroom_ci95"] = [100 * bound for bound in interval]
        headroom = figures["top1_oracle"] - figures["top1"]
        logger.info(
            "%s: with attention to the object only, top-1 is %.2f instead of %.2f, %+.2f [%.2f, %.2f]%s",
            *(run.data.name, figures["top1_oracle"], figures["top1"], headroom, *figures["oracle_headroom_ci95"]),
            ": an indication of what better maps could gain" if headroom > 0 else "",
        )
    if groups is not None:
        return figures | {"group": "object", "interval": "group bootstrap"}
    return figures | {"interval": "score" if accuracy.applies(run) else "bootstrap"}


def _finished(output_dir: Path, planned: BenchmarkResult, run: BenchmarkRun) -> BenchmarkResult | None:
    """The result on disk, if it is the one that is planned and nothing that is asked for is missing."""
    stored = finished_result(output_dir, planned.dataset)
    if stored is None:
        return None
    if stored.same_run(planned) and (run.options.skip_unreadable or not stored.unreadable):
        optional = {"oracle": (oracle_test, stored.top1_oracle), "SaCo": (faithfulness_test, stored.saco)}
        missing = [name for name, (test, figure) in optional.items() if test.applies(run) and figure is None]
        if not missing:
            logger.info("%s is finished in %s and not run again", planned.dataset, output_dir)
            return stored
        logger.info("%s has no %s in %s and is run again", planned.dataset, " and no ".join(missing), output_dir)
        return None
    logger.warning(
        "%s in %s is of another model, data set or protocol: it is run again and replaced", planned.dataset, output_dir
    )
    return None
