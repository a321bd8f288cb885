"""Evaluation from beginning to end: load the models, score them on every benchmark, compare, and show their maps."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from accelerate import Accelerator
from transformers.hf_argparser import HfArg

from hf_robustvit.commands.settings import TextHeadArguments, check_output_dir
from hf_robustvit.data import check_pairs, text_classes
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
from hf_robustvit.hub import HubRepository
from hf_robustvit.imagenet_classes import NAMES
from hf_robustvit.models.families import family_of
from hf_robustvit.models.loading import classifier_config
from hf_robustvit.models.zero_shot import ZeroShotHead
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


@dataclass
class EvaluationArguments(TextHeadArguments):
    """The models, the data sets they are evaluated on, and how."""

    model: str = HfArg(help='Hub id, local folder, "timm/<name>" or "cutouts-vit".')
    dataset: list[str] = HfArg(
        help="Names of benchmarks, or folders with images/<class>/* or <class>/*. Groups: cutouts (the embedded "
        "benchmark), composites (made of the images and masks of --data_dir), imagenet-9, shape-texture, imagenet-c, "
        "imagenet-d, all (the paper's ImageNet benchmarks for a model of its 1000 classes, the embedded one for any "
        "other model)."
    )
    output_dir: str = HfArg(help="Where results go; finished ones there are not run again.")
    baseline: str | None = HfArg(default=None, help="A second model, to compare with on the same images.")
    revision: str | None = HfArg(default=None, help="Hub revision of --model.")
    baseline_revision: str | None = HfArg(default=None, help="Hub revision of --baseline.")
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Folder of the data set, or of several by their names. Default: $HF_ROBUSTVIT_DATA.",
    )
    backgrounds: str | None = HfArg(
        default=None, help="Folder of images that composites put objects on. Default: the other photos of --data_dir."
    )
    preprocessing: Literal["checkpoint", "paper"] = HfArg(
        default="checkpoint",
        help="The checkpoint's own, or the paper's: resize to 256, centre crop 224, mean and std 0.5.",
    )
    crop_border: int = HfArg(default=0, help="Pixels cut from each side first (ObjectNet's authors: 2, paper: 0).")
    skip_unreadable: bool = HfArg(
        default=False, help="Leave out unreadable images and list them, instead of stopping."
    )
    oracle: bool = HfArg(
        default=False,
        help="On sets with masks, also measure what a perfect map could gain: accuracy when what the head reads is "
        "forbidden to attend to the background.",
    )
    faithfulness: bool = HfArg(
        default=False,
        help="On sets with masks, also judge maps by occlusion and SaCo, and the model by noise on the object and "
        "around it; takes about four times as long.",
    )
    audit: bool = HfArg(
        default=False,
        help="Instead, judge whether the model decides by the background: audit.html and audit.json, on one folder "
        "of photos, or one data set, with masks.",
    )
    masks: str | None = HfArg(
        default=None, help="Folder of masks for --audit; tokencut makes them. Default: those of the data set."
    )
    report: bool = HfArg(default=False, help="Also write report.html: one page with everything, to open in a browser.")
    batch_size: int = HfArg(default=64, help="Images in a batch, in each process.")
    num_workers: int = HfArg(default=min(8, os.cpu_count() or 1), help="Processes that read images, for each process.")
    bf16: bool = HfArg(default=False, help="Run the model in bfloat16 autocast.")
    update_card: bool = HfArg(default=False, help="Add the results to the card of --model, which is a local folder.")
    push_to_hub: bool = HfArg(default=False, help="Add the results to the card of --model, which is then a Hub id.")


def load_checkpoints(arguments: EvaluationArguments) -> list[Checkpoint]:
    """Load the models, the baseline first if there is one.

    Raises:
        UserError: One cannot be loaded, or the output folder cannot be written to.
    """
    check_output_dir(arguments.output_dir)
    models = [(arguments.model, arguments.revision)]
    if arguments.baseline:
        models.insert(0, (arguments.baseline, arguments.baseline_revision))
    checkpoints = [_load_checkpoint(arguments, name, revision) for name, revision in models]
    for flag in ("class_names", "prompt_template"):
        if getattr(arguments, flag) and not any(isinstance(each.model, ZeroShotHead) for each in checkpoints):
            raise UserError(
                f"--{flag} is for CLIP-type models, which classify by class names, and {arguments.model!r} is none: "
                "leave it out."
            )
    return checkpoints


def _load_checkpoint(arguments: EvaluationArguments, name: str, revision: str | None) -> Checkpoint:
    """Load a model; a CLIP-type one with the classes that the flags name or that it brings, else with ImageNet's."""
    config = classifier_config(name, revision)
    if not family_of(config).is_zero_shot:
        return Checkpoint.load(name, revision)
    head = arguments.text_head()
    takes_classes = not head["class_names"] and not config.id2label
    head |= {"class_names": NAMES} if takes_classes else {}
    return replace(Checkpoint.load(name, revision, **head), takes_classes=takes_classes)


def name_classes(checkpoints: Sequence[Checkpoint], found: Sequence[BenchmarkRows]) -> None:
    """Give CLIP-type models that bring no class names those of the other model, or of the data sets.

    On ImageNet's sets they keep ImageNet's, which they were loaded with.

    Args:
        checkpoints: As `load_checkpoints` gives them.
        found: The data sets.
    """
    zero_shot = (each for each in checkpoints if isinstance(each.model, ZeroShotHead))
    named = next((each.model for each in zero_shot if not each.takes_classes), None)
    if named:
        names, template = list(named.config.id2label.values()), named.config.prompt_template
    else:
        features = [rows.rows.features["label"] for rows in found if "label" in rows.rows.features]
        names, template = text_classes(list(dict.fromkeys(name for one in features for name in one.names))), None
        if any(rows.imagenet_indices for rows in found) or not names:
            return
    for model in (each.model for each in checkpoints if each.takes_classes):
        model.set_classes(names, template or model.config.prompt_template, model.tokenizer)


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
        add_results(card_folder, arguments.model, results[-1], differences, arguments.baseline, confusions)
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
        if shown := explain_rows(few, arguments.preprocessing, arguments.crop_border):
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
