"""The paper's experiments, from their names to pages."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from transformers import HfArgumentParser

from hf_robustvit.builders import load_benchmark_rows, load_training_pairs
from hf_robustvit.builders.suite_folder import SuiteFolder
from hf_robustvit.commands.finetune import finetune
from hf_robustvit.commands.guidance import after_experiments
from hf_robustvit.commands.settings import check_output_dir, start_log
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.experiments.pages import jobs, make_experiments, needed_runs, show_experiments
from hf_robustvit.experiments.runs import Run, Sources, Workshop
from hf_robustvit.experiments.suites import choose_suite, folder_suite
from hf_robustvit.flags.experiment import ExperimentArguments
from hf_robustvit.flags.finetune import FinetuneArguments
from hf_robustvit.flags.masks import SaliencyOptions
from hf_robustvit.masks import OPTIONS, SOURCES, QualityGate, options_of
from hf_robustvit.trainer.repetition import changed_settings


def main(arguments: ExperimentArguments, reading: MaskReading = NO_FLAGS, *mask_settings: Any) -> None:
    """Make the experiments, and say where their pages are."""
    start_log()
    folders = (arguments.data_dir, arguments.images_dir)
    if os.path.isdir(arguments.suite):
        own = SuiteFolder(arguments.suite, reading)
        load = (lambda _, masks: own.training_pairs(masks), own.benchmark, own.validation_pairs)
    else:
        load = (lambda dataset, masks: load_training_pairs(dataset, *folders, masks),)
        load += (lambda name: load_benchmark_rows(name, arguments.data_dir),)
    pages = experiment(arguments, *load, reading=reading, mask_settings=mask_settings)
    if pages or arguments.run:
        print(after_experiments(arguments, pages))


def experiment(
    arguments: ExperimentArguments,
    load_pairs: Callable[[str, str], datasets.Dataset],
    load_rows: Callable[[str], BenchmarkRows],
    load_validation: Callable[[], datasets.Dataset] | None = None,
    reading: MaskReading = NO_FLAGS,
    mask_settings: Sequence[Any] = (),
) -> list[Path]:
    """Make the runs, then the pages.

    Args:
        arguments: Which experiments, on what.
        load_pairs: From a data set and the value of `--masks` to the image-mask pairs.
        load_rows: From a benchmark's name to its rows.
        load_validation: The image-mask pairs to validate on, for a suite that is a folder.
        reading: How the masks of that folder are read.
        mask_settings: The gate's, and those of the sources, one of each of `masks.OPTIONS`; the suite's if left out.

    Returns:
        The pages; none where only a part of the runs was made.
    """
    names = arguments.chosen()
    for source in arguments.mask_sources:
        if source not in SOURCES:
            raise unknown_name("--mask_sources", source, SOURCES)
    if arguments.processes < 1:
        raise UserError(f"--processes is {arguments.processes}: give 1 or more.")
    check_output_dir(arguments.output_dir)
    if load_validation:
        if arguments.quick:
            raise UserError("--quick is for --suite cutouts: leave it out.")
        labels = load_pairs(arguments.suite, "annotated")["label"]
        settings = arguments.learning_rate, arguments.development
        suite = folder_suite(arguments.suite, arguments.models or [], labels, *settings)
    else:
        for flag in ("learning_rate", "development"):
            if getattr(arguments, flag):
                raise UserError(f"--{flag} is for a --suite that is a folder: leave it out.")
        suite = choose_suite(arguments.suite, arguments.quick).with_models(arguments.models)
    suite = replace(suite, mask_sources=tuple(arguments.mask_sources))
    if mask_settings:
        suite = replace(suite, mask_settings=_with_flags(suite.mask_settings, *mask_settings))
    if "masks" in names and "saliency" in suite.mask_sources:  # before other runs take hours
        SaliencyOptions(suite.mask_settings.get("saliency", {}).get("saliency_model")).check()
    train = partial(finetune_with, reading=reading)
    sources = Sources(lambda masks: load_pairs(suite.dataset, masks), load_rows, train, load_validation)
    chosen = {name: EXPERIMENTS[name] for name in names}
    if arguments.run is not None or arguments.print_jobs:
        parts = jobs(needed_runs(chosen, suite))
        if arguments.run is None:
            return print_jobs(parts)
        if not 1 <= arguments.run <= len(parts):
            raise UserError(f"--run is {arguments.run}: these experiments have the runs 1 to {len(parts)}.")
    workshop = Workshop(Path(arguments.output_dir), suite, sources, Accelerator())
    if arguments.run:
        workshop.make_all(parts[arguments.run - 1])
        return []
    if arguments.processes > 1:  # more threads than cores would wait for each other
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // arguments.processes))
    helpers = [] if arguments.helper else start_helpers(arguments.processes - 1, workshop.root / "logs")
    make_experiments(chosen, workshop)
    for helper in helpers:
        helper.wait()
    return [] if arguments.helper else list(show_experiments(chosen, workshop))


def _with_flags(
    settings: Mapping[str, Mapping[str, Any]], gate: QualityGate, *mask_options: Any
) -> dict[str, dict[str, Any]]:
    """A suite's settings by what makes masks, where flags that were given win."""
    given = {source: changed_settings(options_of(source, mask_options)) | changed_settings(gate) for source in SOURCES}
    return {source: {**settings.get(source, {}), **flags} for source, flags in given.items()}


def finetune_with(
    flags: Mapping[str, Any],
    pairs: datasets.Dataset,
    validation_pairs: datasets.Dataset | None = None,
    reading: MaskReading = NO_FLAGS,
) -> tuple[dict[str, float], dict[str, float]]:
    """Fine-tune by flags of run_finetune.py; the validation figures before and after."""
    types = (FinetuneArguments, RobustViTConfig, QualityGate, *OPTIONS)
    lists = {name: list(value) for name, value in flags.items() if isinstance(value, tuple)}  # runs are hashable
    arguments, config, gate, *mask_options = HfArgumentParser(types).parse_dict({**flags, **lists})
    return finetune(arguments, config, pairs, mask_options, gate, reading, validation_pairs)


def print_jobs(parts: Sequence[Mapping[Run, Sequence[str]]]) -> list[Path]:
    """Print the command that makes each part of the runs, and what tells its first run from the others; no pages."""
    command = [word for word in sys.orig_argv if word != "--print_jobs"]
    runs = [next(iter(part)) for part in parts]
    trained = [run.settings for run in runs if not run.is_original]
    shared = set(trained[0]).intersection(*trained) if trained else set()
    for number, run in enumerate(runs, start=1):
        own = [f"{name}={value}" for name, value in run.settings if name != "method" and (name, value) not in shared]
        print(shlex.join([*command, "--run", str(number)]), " #", run.title, *own)
    return []


def start_helpers(count: int, logs: Path) -> list[subprocess.Popen]:
    """Start this command several times more, to make runs; what they print goes to files."""
    logs.mkdir(parents=True, exist_ok=True)
    helpers = []
    for number in range(count):
        with (logs / f"{os.getpid()}-{number + 1}.log").open("w") as log:
            helpers.append(subprocess.Popen([*sys.orig_argv, "--helper"], stdout=log, stderr=subprocess.STDOUT))
    return helpers
