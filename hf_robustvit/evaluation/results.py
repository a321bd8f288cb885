"""A benchmark's result on disk: a JSON file of figures, a Parquet file of predictions, written whole or not at all."""

import hashlib
import logging
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.figures import FIGURES
from hf_robustvit.files import read_json, refuse_other_types, replacing, write_json
from hf_robustvit.record import package_versions


logger = logging.getLogger(__name__)

_FIELDS = [*FIGURES, *(f"{name}_ci95" for name, figure in FIGURES.items() if figure.has_interval)]
_Number = float | int
_PARTS = {"top1", "top5", "n"}  # the figures of a part of the images
_Figures = make_dataclass(
    "_Figures",
    [
        (name, (list[_Number] if name.endswith("_ci95") else _Number) | None, field(default=None, kw_only=True))
        for name in _FIELDS
    ],
)


@dataclass
class BenchmarkResult(_Figures):
    """What is kept of one model on one benchmark; percent throughout. A figure without a meaning here is None.

    Attributes:
        dataset: The benchmark's name.
        model: The model as the user named it.
        revision: Its Hub commit.
        num_images: Number of images that were scored.
        protocol: preprocessing, label_space, crop_border, precision.
        weights: Fingerprint of the model's weights.
        data: Digest of the data set, see `content_digest`.
        per_class: Class name -> top1, top5, n.
        per_group: Group -> top1, top5, n, where the data set has groups.
        train_classes, held_out_classes: top1, top5, n of the classes the model was fine-tuned on, and of the others.
        oracle_headroom_ci95: Paired interval of top1_oracle minus top1.
        unreadable: Names of the images left out because they could not be read.
        versions: Package versions.
        predictions: Digest of the file of predictions; None in results of earlier versions, or without one.
        top1, top5: Over all classes the model knows, the first ImageNet index of each class counting (the paper), or
            as the data set's authors decide, see `LabelSpace.guess`; `protocol` tells which.
        top1_subset, top5_subset: Logits restricted to the benchmark's classes (the benchmark authors' protocol).
        top1_any: Over all classes, any of the class's indices counting (ObjectNet).
        shape_bias, worst_group_top1, adjusted_top1: See `summaries`.
        bg_gap, mean_top1, mean_corruption_error, spurious_score: Of several data sets together, see `combined`.
        spurious_top1: See `spurious.measure`.
        top1_ci95: The 95 % interval of top1, see `interval`.
        pixel_accuracy, mean_iou, mean_average_precision: The segmentation test, with intervals from the bootstrap.
        ece, worst_classes_top1: See `summaries`; the latter where there are classes of ten images or more.
        relevance_in_mask, relevance_in_mask_rollout, rank_accuracy, pointing_game, insertion, deletion: See
            `maps.measure`; for sets with masks.
        relevance_in_mask_occlusion, saco, foreground_sensitivity: See `faithfulness.measure`, where they were asked
            for.
        top1_grey_background, top1_swapped_background: Top-1 with other surroundings, see `backgrounds.measure`.
        top1_grey_object, top1_grey_box: Top-1 without the object, see `ablations.measure`; for Hard ImageNet.
        top1_oracle: Top-1 when the CLS token is forbidden to attend to the background, where that was asked for.
        group: The column of the predictions that says which images show the same "object", where some do.
        interval: How the intervals were made: "group bootstrap", of whole objects, where there is a group. Elsewhere
            "score" for the accuracies (Wilson's, and Tango's paired one for the headroom), or "bootstrap" where there
            are none; those of the segmentation test and of the summaries are always from the bootstrap.
    """

    dataset: str
    model: str
    revision: str | None
    num_images: int
    protocol: dict
    weights: str
    data: str
    per_class: dict[str, dict[str, _Number]] = field(default_factory=dict)
    per_group: dict[str, dict[str, _Number]] = field(default_factory=dict)
    train_classes: dict[str, _Number] | None = None
    held_out_classes: dict[str, _Number] | None = None
    oracle_headroom_ci95: list[_Number] | None = None
    group: Literal["object"] | None = None
    interval: Literal["score", "bootstrap", "group bootstrap"] = "score"
    unreadable: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=package_versions)
    predictions: str | None = field(default=None, compare=False)

    def same_run(self, other: "BenchmarkResult") -> bool:
        """Whether both come from the same model, data and protocol, so that one need not be made again."""
        made_by = ("dataset", "model", "revision", "weights", "data", "protocol")
        return all(getattr(self, name) == getattr(other, name) for name in made_by)


def write_result(folder: Path, result: BenchmarkResult, predictions: pd.DataFrame | None) -> BenchmarkResult:
    """Write `<dataset>.predictions.parquet`, then `<dataset>.json`, which marks the data set as finished.

    Predictions are None where a result is of several data sets together.

    Returns:
        The result with the digest of its predictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    json_path, parquet_path = _paths(folder, result.dataset)
    # An old JSON beside new predictions would call them finished.
    json_path.unlink(missing_ok=True)
    if predictions is not None:
        with replacing(parquet_path) as path:
            predictions.to_parquet(path, index=False)
        result = replace(result, predictions=_digest(parquet_path))
    content = asdict(result)
    content = {name: content[name] for name in (*BenchmarkResult.__annotations__, *content)}  # the figures come last
    write_json(json_path, content)
    return result


def read_result(folder: Path, dataset: str) -> BenchmarkResult | None:
    """The finished result of a data set; None where there is none.

    Raises:
        UserError: The file is not a result of this version, or its predictions are not those it was written with.
    """
    json_path, parquet_path = _paths(folder, dataset)
    if not (json_path.is_file() and parquet_path.is_file()):
        return None
    try:
        stored = read_json(json_path)
        refuse_other_types(stored, BenchmarkResult)
        stored.setdefault("predictions")
        result = BenchmarkResult(**{item.name: stored[item.name] for item in fields(BenchmarkResult)})
        bounds = [value for name, value in stored.items() if name.endswith("_ci95") and value is not None]
        parts = [*result.per_class.values(), *result.per_group.values(), result.train_classes, result.held_out_classes]
        whole = all(len(pair) == 2 for pair in bounds) and all(part.keys() == _PARTS for part in parts if part)
        if result.dataset != dataset or not whole:
            raise ValueError("it is another data set's, or a figure is not whole")
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{json_path} is not a result of this version; remove it, or give another --output_dir."
        ) from error
    if result.predictions not in (None, _digest(parquet_path)):
        raise UserError(f"{parquet_path} has changed since {json_path.name} was written: remove both.")
    return result


def finished_result(folder: Path, dataset: str) -> BenchmarkResult | None:
    """`read_result` for those who can make a result again: where it cannot be used, the log says so."""
    try:
        return read_result(folder, dataset)
    except UserError as error:
        logger.warning("%s is made again: %s", dataset, error)
        return None


def read_predictions(folder: Path, dataset: str) -> pd.DataFrame:
    """The predictions that belong to a finished result."""
    return pd.read_parquet(_paths(folder, dataset)[1])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _paths(folder: Path, dataset: str) -> tuple[Path, Path]:
    return folder / f"{dataset}.json", folder / f"{dataset}.predictions.parquet"
