"""The model card: what was done to a model, with which images, and what came of it, for better or worse."""

import html
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_robustvit.data import MADE_MASKS, MASK_CONTROLS
from hf_robustvit.errors import UserError, first_line
from hf_robustvit.evaluation.comparison import Difference, adjust
from hf_robustvit.evaluation.figures import FIGURES
from hf_robustvit.evaluation.per_class import Confusion
from hf_robustvit.evaluation.results import BenchmarkResult
from hf_robustvit.evaluation.statistics import accuracy_interval
from hf_robustvit.files import CARD, RESULTS, read_json, write_json, write_text
from hf_robustvit.models.files import find_model_file
from hf_robustvit.record import TrainingRecord, package_versions
from hf_robustvit.reporting.comparison import CONFUSION_NOTE, LOWEST_NOTE, readable
from hf_robustvit.reporting.leaderboards import write_leaderboards
from hf_robustvit.reporting.tables import (
    comparison_table,
    confusion_table,
    interval,
    intervals_note,
    lowest_classes_table,
    markdown_table,
    results_table,
    statistics_note,
)


logger = logging.getLogger(__name__)

COMPARISON = "comparison.json"
TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"

# Every evaluation rewrites what is between these lines; the rest of a card may be edited by hand.
BEGIN, END = "<!-- hf_robustvit: benchmarks -->", "<!-- hf_robustvit: end of benchmarks -->"
NO_BENCHMARKS = "No benchmark has been run on this model yet; `hf-robustvit eval --update_card` adds its results here."

METHODS = {
    "robustvit": "so that its own relevance maps lie on the objects (RobustViT's loss)",
    "gradmask": "with a penalty on gradients outside the objects (the baseline GradMask)",
    "rrr": "with a penalty on gradients outside the objects (the baseline RRR)",
    "finetune": "by plain cross-entropy, which looks at no mask (the control)",
}
NUM_CLASSES_SHOWN = 20

TASK = {"task_type": "image-classification", "task_name": "Image classification"}


def write_card(folder: str | os.PathLike, model_id: str) -> None:
    """Write the README.md of a model that was just fine-tuned, from its robustvit.json.

    Args:
        folder: The model's folder.
        model_id: Its name on the Hub, now or later; for a local model the name of its folder.
    """
    record = TrainingRecord.read(folder)
    name = model_id.rpartition("/")[2]
    base = public_name(record.base_model)
    settings = {key: value for key, value in record.hyper_parameters.items() if value is not None}
    card = ModelCard.from_template(
        _metadata(record, name),
        template_path=str(TEMPLATE),
        title=as_text(name),
        summary=f"{as_text(base)}, fine-tuned {METHODS.get(record.method, f'by the method {record.method}')}.",
        facts=_facts(record, base),
        hyper_parameters=markdown_table(
            ("setting", "value"), [[f"`{key}`", as_text(value)] for key, value in settings.items()]
        ),
        validation=_validation(record),
        checkpoint_note=_checkpoint_note(record),
        benchmarks=f"{BEGIN}\n{NO_BENCHMARKS}\n{END}",
        task=_task(record),
        model_id=json.dumps(model_id),
        licence=_licence_text(record.base_licence, base),
        versions=", ".join(f"{name} {version}" for name, version in package_versions().items()) + ".",
    )
    write_text(Path(folder) / CARD, str(card) + "\n")


def add_results(
    folder: Path,
    model_id: str,
    results: Sequence[BenchmarkResult],
    differences: Sequence[Difference],
    baseline: str | None,
    confusions: Mapping[str, Confusion] = MappingProxyType({}),
    hub_ids: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add an evaluation's results to a model's card, its metadata, and its folders `results` and `.eval_results`.

    Results that are there already stay if they are of the same weights, and differences if they are from the same
    baseline; Holm's adjustment is then made over all of them.

    Args:
        folder: Holds the card, README.md, if the model has one, and `results`.
        model_id: The model's name on the Hub, or its folder's name.
        results: Of the model, at least one.
        differences: From the baseline, on the same data sets; empty without one.
        baseline: The baseline's name.
        confusions: Data set -> which classes the two take for which, as `changed_confusions` gives them.
        hub_ids: Data set -> what the Hub calls it. Those that are not there have no file in `.eval_results`.
    """
    stored = _stored_results(folder / RESULTS)
    kept = {result.dataset: result for result in stored if result.weights == results[0].weights}
    earlier = kept.keys() - {result.dataset for result in results}
    kept |= {result.dataset: result for result in results}
    baseline, differences, confusions = _merge(
        folder / RESULTS / COMPARISON, earlier, differences, baseline, confusions
    )

    card = _load_card(folder / CARD, model_id)
    entries = [entry for result in kept.values() for entry in _eval_results(result)]
    others = [
        entry for entry in card.data.eval_results or [] if not any(entry.is_equal_except_value(new) for new in entries)
    ]
    card.data.model_name = card.data.model_name or model_id.rpartition("/")[2]
    card.data.eval_results = others + entries
    section = f"{BEGIN}\n{_benchmarks(list(kept.values()), differences, baseline, confusions)}\n{END}"
    before, begin, rest = card.text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    card.text = f"{before}{section}{after}" if begin else f"{before.rstrip()}\n\n{section}{after}"

    for result in results:
        write_json(folder / RESULTS / f"{result.dataset}.json", asdict(result))
    write_leaderboards(folder, results, hub_ids, outdated={one.dataset for one in stored} - kept.keys())
    if differences:
        comparison = {"model": model_id, "baseline": baseline, "differences": list(map(asdict, differences))}
        comparison["confusions"] = {name: asdict(confusion) for name, confusion in confusions.items()}
        write_json(folder / RESULTS / COMPARISON, comparison)
    write_text(folder / CARD, str(card))


def base_licence(name: str, revision: str | None = None) -> dict[str, str]:
    """What the card of a base model says about its licence: `license`, `license_name`, `license_link`.

    Args:
        name: Hub id, local folder or embedded model.
        revision: Of the model on the Hub.

    Returns:
        The fields that are there; empty where the model has no card, or it cannot be read.
    """
    try:
        path = find_model_file(name, CARD, revision)
        metadata = ModelCard.load(path, ignore_metadata_errors=True).data.to_dict() if path else {}
    except (UserError, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        logger.warning("The licence of %s is unknown: its card cannot be read (%s).", name, first_line(error))
        return {}
    licence = {key: metadata.get(key) for key in ("license", "license_name", "license_link")}
    return {key: value for key, value in licence.items() if isinstance(value, str)}


def as_text(value: object) -> str:
    """A value on one line of Markdown that shows as it is: no markup, no HTML, no new table cell."""
    text = re.sub(r"([\\`*_\[\]{}~$!#])", r"\\\1", " ".join(str(value).split()))
    return html.escape(text, quote=False).replace("|", "&#124;")


def public_name(name: str) -> str:
    """A model's or data set's name; only the last part of a path, so that a card does not reveal a disk's layout."""
    return Path(name).resolve().name if os.path.isdir(name) or os.path.isabs(name) else name


def _metadata(record: TrainingRecord, name: str) -> ModelCardData:
    dataset = public_name(record.dataset)
    return ModelCardData(
        **record.base_licence,
        base_model=_hub_id(record.base_model),
        library_name="transformers",
        pipeline_tag=_task(record),
        tags=[_task(record), "hf_robustvit", "robustness", "relevance-maps"],
        metrics=["accuracy"],
        model_name=name,
        eval_results=[
            EvalResult(
                **TASK,
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split="validation",
                metric_type="accuracy",
                metric_name=FIGURES["top1"].hub_name,
                metric_value=round(100 * record.validation["after"]["eval_accuracy"], 2),
            )
        ],
    )


def _task(record: TrainingRecord) -> str:
    """The pipeline of transformers that the model is for."""
    return "zero-shot-image-classification" if record.prompt_template else "image-classification"


def _facts(record: TrainingRecord, base: str) -> str:
    """The list of what was trained on what."""
    revision = f", revision {as_text(record.base_revision)}" if record.base_revision else ""
    link = _hub_id(record.base_model)
    base = f"[{as_text(base)}](https://huggingface.co/{link})" if link else as_text(base)
    training, held_out = record.training_classes, record.held_out_classes
    masks = record.mask_source
    if masks in MASK_CONTROLS:
        masks = f"{masks} (a control: not the images' own masks)"
    elif masks not in ("annotated", *MADE_MASKS):
        masks = f"the folder {public_name(masks)}"
    lines = [
        f"Base model: {base}{revision}",
        f"Images: {len(record.training_images)} for training and {len(record.validation_images)} for "
        f"validation, from {as_text(public_name(record.dataset))}",
        f"Training classes: {len(training)}{_class_list(training)}",
        f"Held-out classes, which the model was not fine-tuned on: {len(held_out)}{_class_list(held_out)}",
        f"Masks: {as_text(masks)}",
        f"Method: `{record.method}`",
    ]
    if record.swap_backgrounds or record.recombine_objects:
        moved = ", and half of these times its object was moved, turned and scaled" if record.recombine_objects else ""
        lines.append(f"Each training image was shown on another one's background half of the time{moved}")
    if (share := record.arguments.get("finetuned_share", 1)) < 1:
        lines.append(f"Weights: {share:.0%} fine-tuned and {1 - share:.0%} the base model's, interpolated (WiSE-FT)")
    return "\n".join(f"- {line}" for line in lines)


def _class_list(names: Sequence[str]) -> str:
    """Up to 20 names in brackets; nothing where there are none."""
    shown = ", ".join(map(as_text, names[:NUM_CLASSES_SHOWN]))
    more = len(names) - NUM_CLASSES_SHOWN
    return f" ({shown}{f' and {more} more' if more > 0 else ''})" if names else ""


def _checkpoint_note(record: TrainingRecord) -> str:
    """How the checkpoint was chosen; records of the first version name neither metric nor direction."""
    if not record.best_checkpoint:
        return ""
    metric = record.hyper_parameters.get("metric_for_best_model", "loss").removeprefix("eval_").replace("_", " ")
    best = "highest" if record.hyper_parameters.get("greater_is_better", False) else "lowest"
    return f", and the checkpoint with their {best} {as_text(metric)} was kept"


def _validation(record: TrainingRecord) -> str:
    """The table of the validation images' figures, before and after."""
    count = len(record.validation_images)
    before, after = record.validation["before"], record.validation["after"]
    rows = []
    for name, factor in {"accuracy": 100, "relevance_in_mask": 100, "loss": 1}.items():
        key = f"eval_{name}"
        if key in after:  # a method without maps has no relevance
            row = [name.replace("_", " "), count]
            for value in (before[key], after[key]):
                row += [f"{factor * value:.4g}", _accuracy_interval(value, count) if name == "accuracy" else None]
            rows.append(row)
    return markdown_table(("figure", "n", "before", "95 % interval", "after", "95 % interval"), rows)


def _accuracy_interval(accuracy: float, count: int) -> str | None:
    correct = np.arange(count) < round(accuracy * count)
    return interval([100 * bound for bound in accuracy_interval(correct)])


def _benchmarks(
    results: Sequence[BenchmarkResult],
    differences: Sequence[Difference],
    baseline: str | None,
    confusions: Mapping[str, Confusion],
) -> str:
    """The part of the card that an evaluation writes."""
    results = [replace(result, dataset=as_text(result.dataset)) for result in results]
    differences = [replace(item, dataset=as_text(item.dataset)) for item in differences]
    overall = [item for item in differences if item.classes == "all"]
    groups = [item for item in differences if item.classes != "all" and item.figure == "top1"]
    parts = ["### On benchmarks"]
    if overall:
        parts += [
            f"Before is {as_text(public_name(baseline))}, after is this model, on the same images. Figures are in "
            "percent, differences in percentage points with 95 % intervals; a star marks what is significant. "
            + statistics_note(overall),
            comparison_table(overall),
        ]
    if groups:
        parts += ["The classes it was fine-tuned on, and the others:", comparison_table(groups)]
    if confusions:
        parts.append(f"Which classes are taken for which. {CONFUSION_NOTE}")
    for name, confusion in confusions.items():
        parts += [f"On {as_text(name)}:", confusion_table(confusion, _readable)]
    parts += [
        f"This model alone, in percent. {intervals_note(results)}",
        results_table(results),
        *([LOWEST_NOTE, lowest] if (lowest := lowest_classes_table(results, _readable)) else []),
        "`top1` and `top5` count over all classes of the model (the paper's protocol), `top1_subset` and "
        "`top5_subset` among the benchmark's classes (its authors' protocol) where these are fewer. `ece` is the "
        "expected calibration error, `worst_classes_top1` the top-1 of the worst tenth of the classes. The files are "
        "in `results/`.",
    ]
    return "\n\n".join(parts)


def _readable(class_name: str) -> str:
    return as_text(readable(class_name))


def _eval_results(result: BenchmarkResult) -> list[EvalResult]:
    """A benchmark's accuracies for the Hub's metadata."""
    return [
        EvalResult(
            **TASK,
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            dataset_split="test",
            metric_type="accuracy",
            metric_name=figure.hub_name,
            metric_value=round(getattr(result, name), 2),
        )
        for name, figure in FIGURES.items()
        if figure.hub_name and getattr(result, name) is not None
    ]


def _stored_results(folder: Path) -> list[BenchmarkResult]:
    """The results of this version's form in a folder."""
    names = {item.name for item in fields(BenchmarkResult)}
    contents = (_read(path) for path in sorted(folder.glob("*.json")))
    return [
        BenchmarkResult(**{name: content[name] for name in names}) for content in contents if names <= content.keys()
    ]


def _merge(
    path: Path,
    earlier: set[str],
    differences: Sequence[Difference],
    baseline: str | None,
    confusions: Mapping[str, Confusion],
) -> tuple[str | None, list[Difference], dict[str, Confusion]]:
    """New differences and confusions with the stored ones of earlier data sets, if both have the same baseline.

    The differences are adjusted together.
    """
    stored, differences, confusions = _read(path), list(differences), dict(confusions)
    if stored and baseline in (None, stored["baseline"]):
        baseline = stored["baseline"]
        differences += [Difference(**item) for item in stored["differences"] if item["dataset"] in earlier]
        before = stored.get("confusions", {})  # earlier versions have none
        confusions |= {name: Confusion(**before[name]) for name in before if name in earlier}
    adjust(differences)
    return baseline, differences, confusions


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise UserError(
            f"{path} is not a JSON file ({error}): remove it, on the Hub if it came from there."
        ) from error
    return content if isinstance(content, dict) else {}


def _load_card(path: Path, model_id: str) -> ModelCard:
    if not path.is_file():
        return ModelCard(f"---\nlibrary_name: transformers\n---\n\n# {as_text(model_id.rpartition('/')[2])}\n")
    try:
        return ModelCard.load(path)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"The metadata at the top of {path} cannot be read ({first_line(error)}): repair it."
        ) from error


def _licence_text(licence: Mapping[str, str], base: str) -> str:
    base = as_text(base)
    if not licence:
        return f"Unknown: no card of the base model, {base}, names one. Ask its authors before you use this model."
    name = licence.get("license_name") or licence.get("license") or licence["license_link"]
    link = f" ({as_text(licence['license_link'])})" if "license_link" in licence else ""
    return f"That of the base model, {base}: {as_text(name)}{link}."


def _hub_id(name: str) -> str | None:
    """A model's name if it is one on the Hub."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not os.path.isdir(name) else None
