"""The audit of a classifier: whether it decides by the background, where, and what fine-tuning could gain."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator

from hf_robustvit.builders.image_mask_folder import load_image_mask_folder
from hf_robustvit.commands.checkpoints import name_classes
from hf_robustvit.data import check_pairs
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.data.pairs import PROBLEMS
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.audit import explain_photos, load_answers, refuse_one_class
from hf_robustvit.evaluation.audit_findings import find
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.run import BenchmarkData, BenchmarkRun
from hf_robustvit.flags.evaluate import EvaluationArguments
from hf_robustvit.masks import SOURCES, QualityGate, options_of, with_made_masks
from hf_robustvit.reporting.audit import audit_summary, write_audit


FOLDER = "audit"
UNUSED = ("baseline", "backgrounds", "faithfulness", "report", "update_card", "push_to_hub")


def audit(
    arguments: EvaluationArguments,
    checkpoints: Sequence[Checkpoint],
    found: Sequence[BenchmarkRows],
    accelerator: Accelerator,
    gate: QualityGate,
    mask_options: Sequence[Any],
) -> str:
    """Audit one model on one data set, and write `audit.json` and `audit.html`; answers are kept in the folder audit.

    Args:
        arguments: What is audited, and how.
        checkpoints: The model alone.
        found: The photos, as `load_audited` gives them.
        accelerator: The processes and the device.
        gate: Which of the masks that are made are accepted.
        mask_options: The settings of the sources that make masks, one of each of `masks.OPTIONS`.

    Returns:
        The figures and the verdict as text, in the main process.

    Raises:
        UserError: A flag does not go with an audit; the photos have no masks or no labels, are of one class, or cannot
            be read.
    """
    for flag in UNUSED:
        if getattr(arguments, flag):
            raise UserError(f"--{flag} has no use with --audit, which judges one model: leave one of the two out.")
    if len(found) != 1 or found[0].render:
        raise UserError(
            f"--audit takes one folder of photos, or one data set with masks, found {' '.join(arguments.dataset)}: "
            "name one with --dataset."
        )
    name_classes(checkpoints, found)
    (checkpoint,), (photos,), folder = checkpoints, found, Path(arguments.output_dir) / FOLDER
    options = LoopOptions(arguments.batch_size, arguments.num_workers, arguments.skip_unreadable, arguments.bf16)
    data = BenchmarkData.for_model(replace(photos, tests_masks=False), checkpoint.model.config)
    all_ids = data.rows["image_id"][:]
    makes_masks = arguments.masks in SOURCES
    if data.label_space is None or not (data.has_masks or makes_masks):
        raise UserError(f"--audit needs labels and masks, and --dataset {data.name} has not both: name another one.")
    refuse_one_class(data)
    if makes_masks:
        masker = SOURCES[arguments.masks].masker(options_of(arguments.masks, mask_options), accelerator.device)
        (rows,) = with_made_masks([data.rows], folder / "masks", masker, gate)
        data = replace(data, rows=rows, reading=replace(data.reading, mask_orientation="displayed"))
    if data.is_own_folder:
        skip = PROBLEMS if arguments.skip_unreadable else ("empty", "implausible")
        with accelerator.main_process_first():
            data = replace(data, rows=check_pairs(data.rows, skip=skip, reading=data.reading, use="audit"))
        refuse_one_class(data)

    how = accelerator, options, arguments.preprocessing, arguments.crop_border, True  # with the oracle
    by = {"relevance_method": arguments.relevance_method}
    run, result = BenchmarkRun(checkpoint, data, *how, **by), evaluate_benchmark(checkpoint, data, folder, *how, **by)
    answers = load_answers(run, result, folder)
    if not accelerator.is_main_process:
        return ""
    written = [Path(arguments.output_dir) / f"audit{ending}" for ending in (".json", ".html")]
    newest = max(path.stat().st_mtime for path in folder.glob("*.json"))
    if all(path.is_file() and path.stat().st_mtime >= newest for path in written):
        return audit_summary(json.loads(written[0].read_text(encoding="utf-8")))
    whole = load_image_mask_folder(arguments.dataset[0], with_masks=False)["image_id"] if data.is_own_folder else []
    findings = find(answers) | {
        "without_mask": sorted({*whole} - {*all_ids}),
        "left_out": sorted({*all_ids} - {*answers["image_id"]}),
    }
    readable = replace(run, data=data.named(answers["image_id"]))
    examples = explain_photos(readable, pd.DataFrame(findings["photos"]))
    return audit_summary(write_audit(*written, result, findings, examples))
