"""A benchmark as the evaluation takes it: its rows, and where its classes are among those of each model."""

from pathlib import Path

from dataset_scripts import BENCHMARKS, imagenet_indices, load_benchmark
from dataset_scripts.image_mask_folder import load_image_mask_folder
from hf_robustvit.evaluation.benchmark import BenchmarkData
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes


def load_data(name: str, data_dir: str | None, checkpoints: list[Checkpoint]) -> list[BenchmarkData]:
    """Load a data set and find its classes among those of each model."""
    if name in BENCHMARKS:
        rows, indices = load_benchmark(name, data_dir), imagenet_indices(name, data_dir)
    else:
        rows, indices = load_image_mask_folder(name, with_masks=False), None
        name = Path(name).resolve().name
    if "label" not in rows.column_names:
        return [BenchmarkData(name, rows, None) for _ in checkpoints]
    classes = rows.features["label"].names
    spaces = [match_classes(name, classes, indices, checkpoint.model.config) for checkpoint in checkpoints]
    return [BenchmarkData(name, rows, space) for space in spaces]
