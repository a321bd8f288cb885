"""A run: one model, fine-tuned in one way and scored on benchmarks. Each is made once and then read."""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from accelerate import Accelerator

from hf_robustvit.data import MADE_MASKS, text_classes
from hf_robustvit.data.benchmark_rows import BenchmarkRows
from hf_robustvit.data.content import content_digest
from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.examples import evenly_spaced
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.results import BenchmarkResult, finished_result, read_predictions, read_result
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.experiments.suites import Suite
from hf_robustvit.experiments.wise_ft import interpolate_weights
from hf_robustvit.files import claim, replacing
from hf_robustvit.models.families import family_of
from hf_robustvit.models.loading import classifier_config
from hf_robustvit.record import TrainingRecord


logger = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two looks at runs that other processes make


@dataclass(frozen=True)
class Run:
    """What decides a model's weights.

    Attributes:
        model: The original model, as `load_classifier` takes it.
        settings: Flags of run_finetune.py, sorted; none of them is the original model itself.
        share: Share of the fine-tuned weights in an interpolation with the original ones (WiSE-FT).
    """

    model: str
    settings: tuple[tuple[str, Any], ...] = ()
    share: float = 1.0

    @classmethod
    def of(cls, model: str, settings: Mapping[str, Any] | None, share: float = 1.0) -> "Run":
        """A run from a dict of settings; None is the original model."""
        items = {name: tuple(value) if isinstance(value, list) else value for name, value in (settings or {}).items()}
        return cls(model, tuple(sorted(items.items())), share)

    @property
    def is_original(self) -> bool:
        return not self.settings

    @property
    def finetuned(self) -> "Run":
        """The run whose weights an interpolation starts from."""
        return Run(self.model, self.settings)

    @property
    def title(self) -> str:
        """The model and the method, for folders and logs."""
        settings = dict(self.settings)
        name = os.path.basename(os.path.abspath(self.model)) if os.path.isdir(self.model) else self.model
        parts = [name, "original" if self.is_original else settings.get("method", "robustvit")]
        parts += [f"share {self.share:g}"] if self.share != 1 else []
        return " ".join(parts)


@dataclass(frozen=True)
class Sources:
    """Where data come from; the experiments know no data set by themselves.

    Attributes:
        training_pairs: From the value of `--masks` to the image-mask pairs.
        benchmark: From a benchmark's name to its rows.
        finetune: From flags of run_finetune.py, image-mask pairs and those of `validation_pairs` to the validation
            figures before and after; the model is saved in the flag `output_dir`.
        validation_pairs: Image-mask pairs to validate on; without, fine-tuning sets some of the training pairs aside.
    """

    training_pairs: Callable[[str], datasets.Dataset]
    benchmark: Callable[[str], BenchmarkRows]
    finetune: Callable[..., tuple[dict[str, float], dict[str, float]]]
    validation_pairs: Callable[[], datasets.Dataset] | None = None


class Workshop:
    """Makes runs, each once, in OUT/runs/<title>-<key>: `model/`, `validation.json` and `results/`.

    Args:
        root: OUT, which several processes and machines may share.
        suite: What the runs are trained and scored on.
        sources: Loads the data.
        accelerator: The device.
    """

    def __init__(self, root: Path, suite: Suite, sources: Sources, accelerator: Accelerator):
        self.root, self.suite, self.accelerator = root, suite, accelerator
        self._load_pairs = cache(sources.training_pairs)
        self._load_benchmark, self._train = cache(sources.benchmark), sources.finetune
        self._validation_pairs = cache(sources.validation_pairs or (lambda: None))
        self._training_content = cache(lambda masks: content_digest(self._training_pairs(masks)))
        self._validation_content = cache(lambda: (pairs := self._validation_pairs()) and content_digest(pairs))
        self._benchmarks: dict[tuple[str, ...], BenchmarkData] = {}
        self._originals = cache(self._load_original)

    def folder(self, run: Run) -> Path:
        """The run's folder. Its name changes with the settings, the original weights and the images."""
        decisive = [run.settings, run.share, self._originals(run.model).weights]
        if not run.is_original:
            masks = dict(run.settings).get("masks", "annotated")
            decisive += [self._training_content(masks), self._validation_content()]
        key = hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:10]
        return self.root / "runs" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', run.title)}-{key}"

    def make_all(self, needs: Mapping[Run, Iterable[str]]) -> None:
        """Make the runs with their benchmarks, except those that other processes are making, and wait for these.

        Args:
            needs: Run -> names of benchmarks.
        """
        waiting = dict(needs)
        while waiting:
            before = len(waiting)
            for run, benchmarks in list(waiting.items()):
                if not self.is_finished(run, benchmarks) and (run.share == 1 or self._is_trained(run.finetuned)):
                    with claim(self.folder(run)) as is_ours:
                        if is_ours:
                            logger.info("%s (%d of %d runs are left)", run.title, len(waiting), len(needs))
                            self._make(run, benchmarks)
                if self.is_finished(run, benchmarks):
                    del waiting[run]
            if len(waiting) == before:  # others are making them
                time.sleep(PAUSE)

    def is_finished(self, run: Run, benchmarks: Iterable[str]) -> bool:
        """Whether a run needs no more work: its model is there, and every benchmark's result on today's data."""
        if not (run.is_original or self._is_trained(run)):
            return False
        checkpoint = self._originals(run.model)
        for name in benchmarks:
            stored = finished_result(self.folder(run) / "results", name)
            if stored is None or stored.data != self.benchmark(name, checkpoint).content:
                return False
            if self._wants_oracle(run, name) and stored.top1_oracle is None:
                return False
        return True

    def checkpoint(self, run: Run) -> Checkpoint:
        """The run's model."""
        if run.is_original:
            return self._originals(run.model)
        folder = self.folder(run)
        checkpoint = Checkpoint.load(str(folder / "model"))
        return replace(checkpoint, name=folder.name)  # whatever machine OUT is looked at from

    def benchmark(self, name: str, checkpoint: Checkpoint) -> BenchmarkData:
        """A benchmark, cut down to the suite's number of images, evenly spaced over its rows."""
        key = (name, *checkpoint.model.config.id2label.values())
        if key not in self._benchmarks:
            data = BenchmarkData.for_model(self._load_benchmark(name), checkpoint.model.config)
            limit = self.suite.images_per_benchmark
            if limit is not None and limit < len(data.rows):
                data = replace(data, rows=data.rows.select(evenly_spaced(len(data.rows), limit)))
            self._benchmarks[key] = data
        return self._benchmarks[key]

    def result(self, run: Run, benchmark: str) -> BenchmarkResult:
        """A finished run's figures."""
        return read_result(self.folder(run) / "results", benchmark)

    def predictions(self, run: Run, benchmark: str) -> pd.DataFrame:
        """A finished run's predictions."""
        return read_predictions(self.folder(run) / "results", benchmark)

    def validation(self, run: Run) -> dict[str, dict[str, float]]:
        """The validation images' figures `before` and `after` the fine-tuning of a finished run."""
        return json.loads((self.folder(run) / "validation.json").read_text(encoding="utf-8"))

    def _training_pairs(self, masks: str) -> datasets.Dataset:
        """The pairs for a value of `--masks`; masks that are to be made are compared with the annotated ones."""
        return self._load_pairs("annotated" if masks in MADE_MASKS else masks)

    def _load_original(self, model: str) -> Checkpoint:
        """The model; a CLIP-type one that brings no classes gets those of the training images, as fine-tuning does."""
        config = classifier_config(model)
        if not family_of(config).is_zero_shot or config.id2label:
            return Checkpoint.load(model)
        class_names = self._training_pairs("annotated").features["label"].names
        return Checkpoint.load(model, class_names=text_classes(class_names))

    def _wants_oracle(self, run: Run, benchmark: str) -> bool:
        """The oracle tells of headroom before any fine-tuning."""
        return run.is_original and benchmark in self.suite.with_masks

    def _is_trained(self, run: Run) -> bool:
        return (self.folder(run) / "validation.json").is_file()

    def _make(self, run: Run, benchmarks: Sequence[str]) -> None:
        folder = self.folder(run)
        if not run.is_original and not self._is_trained(run):
            validation = self._finetune(run, folder) if run.share == 1 else self._interpolate(run, folder)
            with replacing(folder / "validation.json") as path:
                path.write_text(json.dumps(validation, indent=2) + "\n", encoding="utf-8")
        checkpoint = self.checkpoint(run)
        options = LoopOptions(self.suite.eval_batch_size, self.suite.num_workers)
        for name in benchmarks:
            data = self.benchmark(name, checkpoint)
            evaluate_benchmark(
                checkpoint,
                data,
                folder / "results",
                self.accelerator,
                options,
                oracle=self._wants_oracle(run, name),
            )

    def _finetune(self, run: Run, folder: Path) -> dict[str, dict[str, float]]:
        settings = dict(run.settings) | {
            "model": run.model,
            "dataset": self.suite.dataset,
            "output_dir": str(folder / "model"),
            "resume_from_checkpoint": "true",  # a run that was killed goes on
        }
        pairs = self._training_pairs(settings.get("masks", "annotated"))
        before, after = self._train(settings, pairs, self._validation_pairs())
        for checkpoint in (folder / "model").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        return {"before": before, "after": after}

    def _interpolate(self, run: Run, folder: Path) -> dict[str, float]:
        original, finetuned = self._originals(run.model), self.checkpoint(run.finetuned)
        model = interpolate_weights(original.model, finetuned.model, run.share)
        model.save_pretrained(folder / "model")
        original.image_processor.save_pretrained(folder / "model")
        record = TrainingRecord.read(self.folder(run.finetuned) / "model")
        arguments = record.arguments | {"finetuned_share": run.share}
        replace(record, arguments=arguments, validation=None).write(folder / "model")
        return {"share": run.share}
