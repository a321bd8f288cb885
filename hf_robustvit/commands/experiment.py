"""The paper's experiments, from their names to pages."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from transformers import HfArgumentParser
from transformers.hf_argparser import HfArg

from hf_robustvit.commands.finetune import FinetuneArguments, finetune
from hf_robustvit.commands.settings import SETTINGS_FILES, check_output_dir
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.data import NO_FLAGS, MaskReading
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.errors import UserError, unknown_name
from hf_robustvit.experiments.catalogue import EXPERIMENTS
from hf_robustvit.experiments.pages import make_experiments, show_experiments
from hf_robustvit.experiments.runs import Sources, Workshop
from hf_robustvit.experiments.suites import choose_suite, folder_suite
from hf_robustvit.masks import OPTIONS, SOURCES, QualityGate, options_of
from hf_robustvit.masks.saliency import SaliencyOptions
from hf_robustvit.trainer.repetition import changed_settings


@dataclass
class ExperimentArguments:
    """Which experiments, on what."""

    names: list[str] = HfArg(help=f"all, or some of: {', '.join(EXPERIMENTS)}.")
    suite: str = HfArg(
        default="imagenet",
        help="imagenet as in the paper; cutouts, which needs no data and no GPU; or a folder of your own that holds "
        "train and test (images and masks by class) and perhaps backgrounds.",
    )
    quick: bool = HfArg(default=False, help="With --suite cutouts: few images, done in minutes.")
    models: list[str] | None = HfArg(default=None, help="The paper's short names (ViT-B, AR-S, ...), or other models.")
    learning_rate: float | None = HfArg(
        default=None, help="With a folder: of all runs, as lr-search finds it; the paper's if left out."
    )
    development: bool = HfArg(
        default=False, help="With a folder: score on its development photos instead of its test photos."
    )
    output_dir: str = HfArg(default="outputs/experiments", help="OUT; may be shared by machines.")
    data_dir: str | None = HfArg(
        default_factory=lambda: os.environ.get("HF_ROBUSTVIT_DATA"),
        help="Folder that holds the data sets. Default: $HF_ROBUSTVIT_DATA.",
    )
    images_dir: str | None = HfArg(default=None, help="ImageNet's train folder, for --suite imagenet.")
    mask_sources: list[str] = HfArg(
        default_factory=lambda: ["tokencut"],
        help=f"What makes masks in the experiment on masks: some of {', '.join(SOURCES)}, whose flags are those of "
        "run_masks.py.",
    )
    processes: int = HfArg(default=1, help="Processes that share the runs on this machine.")
    helper: bool = HfArg(default=False, help="Make runs only; what --processes starts.")


def as_flags(arguments: list[str]) -> list[str]:
    """The command line with the flag that names, which come first, are written without."""
    has_no_names = arguments and (arguments[0].startswith("-") or arguments[0].endswith(SETTINGS_FILES))
    return arguments if has_no_names else ["--names", *arguments]


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
        The pages.
    """
    names = list(EXPERIMENTS) if arguments.names == ["all"] else arguments.names
    for name in names:
        if name not in EXPERIMENTS:
            raise unknown_name("experiment", name, ["all", *EXPERIMENTS])
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
    workshop = Workshop(Path(arguments.output_dir), suite, sources, Accelerator())
    chosen = {name: EXPERIMENTS[name] for name in names}
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


def start_helpers(count: int, logs: Path) -> list[subprocess.Popen]:
    """Start this command several times more, to make runs; what they print goes to files."""
    logs.mkdir(parents=True, exist_ok=True)
    helpers = []
    for number in range(count):
        with (logs / f"{os.getpid()}-{number + 1}.log").open("w") as log:
            helpers.append(subprocess.Popen([*sys.orig_argv, "--helper"], stdout=log, stderr=subprocess.STDOUT))
    return helpers
