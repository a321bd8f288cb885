"""Evaluation from beginning to end: load the models, score them on every benchmark, compare, and show their maps."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hf_robustvit.builders import benchmark_names, load_benchmark_rows
from hf_robustvit.builders.suite_folder import load_audited
from hf_robustvit.commands.audit import audit
from hf_robustvit.commands.checkpoints import load_checkpoints, name_classes
from hf_robustvit.commands.guidance import after_evaluation
from hf_robustvit.commands.mask_flags import refuse_unused
from hf_robustvit.commands.settings import start_log
from hf_robustvit.data import NO_FLAGS, MaskReading, check_pairs
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.combined import combine
from hf_robustvit.evaluation.curves import varied_columns
from hf_robustvit.evaluation.images import input_size
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.pictures import EvaluatedModel, explain_examples, explain_rows, spread
from hf_robustvit.evaluation.results import read_predictions
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.files import sole_run
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.hub import HubRepository
from hf_robustvit.masks import OPTIONS, QualityGate
from hf_robustvit.reporting.card import add_results
from hf_robustvit.reporting.comparison import (
    BASELINE_FOLDER,
    changed_confusions,
    headline_table,
    write_comparison,
    write_report,
)
from hf_robustvit.reporting.curves import composite_sheet, write_curve
from hf_robustvit.reporting.pictures import overlay_grid
from hf_robustvit.reporting.report import write_html_report


logger = logging.getLogger(__name__)


def main(
    arguments: EvaluationArguments,
    reading: MaskReading = NO_FLAGS,
    gate: QualityGate | None = None,
    *mask_options: Any,
) -> None:
    """Evaluate or audit, and print the headline table or the verdict."""
    gate, mask_options = gate or QualityGate(), mask_options or [options() for options in OPTIONS]
    made = arguments.masks if arguments.audit and arguments.masks else "annotated"
    refuse_unused(made, gate, mask_options, "" if arguments.audit else "--audit ")
    accelerator = Accelerator()
    start_log(accelerator.is_main_process)
    checkpoints = load_checkpoints(arguments)
    audited, usual = (load_audited, arguments.masks), (load_benchmark_rows, arguments.backgrounds)
    load, pictures = audited if arguments.audit else usual
    with accelerator.main_process_first():
        names = benchmark_names(arguments.dataset, for_imagenet=checkpoints[-1].knows_imagenet)
        found = [load(name, arguments.data_dir, reading, pictures, arguments.streaming) for name in names]
    for rows in (one for one in found if one.is_own_folder):
        if seen := checkpoints[-1].images_trained_on(rows.name, rows.rows["image_id"]):
            logger.warning(
                f"--dataset {rows.name}: the model was trained on {len(seen)} of its {len(rows.rows)} images, by "
                "their names; what it gets right there says little about new photos."
            )
    what = arguments, checkpoints, found, accelerator
    with sole_run(arguments.output_dir, accelerator.is_main_process):
        summary = audit(*what, gate, mask_options) if arguments.audit else evaluate(*what)
    if accelerator.is_main_process:
        print(f"{summary}\n\n{after_evaluation(arguments)}")
    accelerator.end_training()  # several processes part before they exit


def evaluate(
    arguments: EvaluationArguments,
    checkpoints: Sequence[Checkpoint],
    found: Sequence[BenchmarkRows],
    accelerator: Accelerator,
) -> str:
    """Evaluate the model, and the baseline if there is one, and compare them.

    Args:
        arguments: What is evaluated, and how.
        checkpoints: As `load_checkpoints` gives them.
        found: The data sets.
        accelerator: The processes and the device.

    Returns:
        The headline table, in the main process; what else was found is in the output folder.

    Raises:
        UserError: An image cannot be read, data sets do not fit, or the push failed, in which case all results are on
            disk.
    """
    if len({rows.name for rows in found}) < len(found):
        raise UserError("--dataset: two folders have the same name, and so would their results; rename one.")
    if arguments.masks:
        raise UserError("--masks is for --audit; without it a folder's own masks are read: leave it out.")
    if arguments.backgrounds and not any(rows.render for rows in found):
        raise UserError("--backgrounds is for composites, and --dataset names none of them: leave it out.")
    options = LoopOptions(arguments.batch_size, arguments.num_workers, arguments.skip_unreadable, arguments.bf16)
    output_dir = Path(arguments.output_dir)
    folders = [output_dir / BASELINE_FOLDER, output_dir][-len(checkpoints) :]
    # All of this comes before anything runs: a mistake shows at once.
    name_classes(checkpoints, found)
    card_folder = prepare_card(arguments) if accelerator.is_main_process else None
    data = [[BenchmarkData.for_model(rows, checkpoint.model.config) for rows in found] for checkpoint in checkpoints]
    with accelerator.main_process_first():
        for own in (one for one in data[-1] if one.is_own_folder and one.has_masks and not one.render):
            check_pairs(own.rows, skip=arguments.skip_unreadable, reading=own.reading, use="evaluation")

    run = {"preprocessing": arguments.preprocessing, "crop_border": arguments.crop_border}
    run |= {"oracle": arguments.oracle, "faithfulness": arguments.faithfulness}
    run["relevance_method"] = arguments.relevance_method
    results = [
        [evaluate_benchmark(checkpoint, one, folder, accelerator, options, **run) for one in sets]
        for checkpoint, sets, folder in zip(checkpoints, data, folders, strict=True)
    ]
    if not accelerator.is_main_process:
        return ""
    differences = write_comparison(output_dir, results[1], results[0]) if arguments.baseline else []
    results = [[*own, *combine(folder, own)] for folder, own in zip(folders, results, strict=True)]
    write_report(output_dir, results[-1], differences)
    titles = ["before", "after"] if arguments.baseline else ["model"]
    curves = {}
    for result in (one for one in results[-1] if varied_columns(one.dataset)):
        frames = {
            title: read_predictions(folder, result.dataset) for title, folder in zip(titles, folders, strict=True)
        }
        curves[result.dataset] = write_curve(output_dir / "curves", result.dataset, frames)
    for composites in (one for one in data[-1] if one.render):
        path = output_dir / "composites" / f"{composites.name}.png"
        composite_sheet(path, composites, input_size(checkpoints[-1].model.config))
    for sets in zip(*data, strict=True):  # of the same images, one for each model
        _draw_overlays(arguments, dict(zip(titles, zip(checkpoints, sets, strict=True), strict=True)), folders)
    is_shown = arguments.baseline and (arguments.report or card_folder)
    confusions = changed_confusions(output_dir, results[-1]) if is_shown else {}
    if arguments.report:
        reported = [EvaluatedModel(*model) for model in zip(titles, checkpoints, folders, results, data, strict=True)]
        examples = explain_examples(reported)
        write_html_report(output_dir / "report.html", reported, differences, examples, curves, confusions)
    if card_folder:
        hub_ids = {rows.name: rows.hub_id for rows in found if rows.hub_id}
        add_results(card_folder, arguments.model, results[-1], differences, arguments.baseline, confusions, hub_ids)
    if arguments.push_to_hub:
        repository_of(arguments).push(card_folder, "Results of an evaluation")
    return headline_table(results[-1], differences)


def _draw_overlays(
    arguments: EvaluationArguments, models: dict[str, tuple[Checkpoint, BenchmarkData]], folders: list[Path]
) -> None:
    """Draw a data set's overlays, unless they are newer than all its results."""
    name = next(iter(models.values()))[1].name
    picture = Path(arguments.output_dir) / "overlays" / f"{name}.png"
    newest_result = max((folder / f"{name}.json").stat().st_mtime for folder in folders)
    if not picture.exists() or picture.stat().st_mtime < newest_result:
        few = {title: (checkpoint, spread(data)) for title, (checkpoint, data) in models.items()}
        how = arguments.preprocessing, arguments.crop_border, arguments.relevance_method
        if shown := explain_rows(few, *how):
            overlay_grid(shown, picture)


def prepare_card(arguments: EvaluationArguments) -> Path | None:
    """The folder of the card that the results are added to: a copy of what is on the Hub, or the model's own folder.

    Returns:
        None where the results are to be added to no card.

    Raises:
        UserError: The results are to be added to the card of a local model, but there is none; or they are to be
            pushed, but the model is not on the Hub, or its card cannot be read.
    """
    folder = Path(arguments.model)
    if arguments.update_card and not arguments.push_to_hub:
        if not folder.is_dir():
            raise UserError(
                f"--update_card adds results to the card of a local model, and --model {arguments.model!r} is not a "
                "folder: leave the flag out, or add the results to a card on the Hub with --push_to_hub."
            )
        return folder
    if not arguments.push_to_hub:
        return None
    if "/" not in arguments.model or folder.is_dir():
        raise UserError(
            f"--push_to_hub adds results to a model on the Hub, which {arguments.model!r} is not: give --model an id."
        )
    card_folder = Path(arguments.output_dir) / "hub"
    repository_of(arguments).fetch_card(card_folder)
    return card_folder


def repository_of(arguments: EvaluationArguments) -> HubRepository:
    """Where the results are pushed to."""
    return HubRepository(arguments.model, revision=arguments.revision)
