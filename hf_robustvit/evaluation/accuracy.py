"""The predictions of a model over a benchmark, and what follows from them: accuracies in both protocols."""

import numpy as np
import pandas as pd
import torch

from hf_robustvit.evaluation.figures import figures_of_kind
from hf_robustvit.evaluation.one_pass import PLAIN, Batch, Columns, Measurement
from hf_robustvit.evaluation.run import BenchmarkRun
from hf_robustvit.evaluation.statistics import accuracy_interval, object_groups


GUESSES = 5


def applies(run: BenchmarkRun) -> bool:
    """Whether the data set has labels."""
    return run.data.label_space is not None


def measurement(run: BenchmarkRun) -> Measurement:
    """Classify every image.

    All class indices are the model's. Columns: `class_name`; `label`, the class's first index; `labels`, all of them,
    only where some class has several; `top5_indices` and `top5_probabilities`, over all the model's classes;
    `class_probability`, the label's; `subset_top5_indices`, over the data set's classes, each by its first index, only
    where the model has more classes; `training_class` (bool), only where the checkpoint records its training classes.
    Where the first index does not decide (see `LabelSpace.guess`) the columns after `top5_probabilities` and `labels`
    are replaced by `right_indices`, all of the class, and `predicted`, the class of the first guess, missing where the
    data set has no such class.
    """
    checkpoint, label_space = run.checkpoint, run.data.label_space
    first_indices = torch.tensor(label_space.first_indices, device=run.accelerator.device)
    labels = run.data.first_indices.to(run.accelerator.device)  # (images,)

    def step(batch: Batch) -> dict[str, torch.Tensor]:
        logits = batch.logits  # (batch, model classes)
        indices, probabilities = label_space.guess(logits, GUESSES)  # (batch, 5) each
        outputs = {"top5_indices": indices, "top5_probabilities": probabilities}
        if label_space.decision == "first":
            outputs["class_probability"] = logits.softmax(dim=1).gather(1, labels[batch.index, None])[:, 0]
        if label_space.is_subset:
            restricted = label_space.restrict(logits)  # (batch, classes of the data set)
            best = restricted.topk(min(GUESSES, restricted.shape[1])).indices
            outputs["subset_top5_indices"] = first_indices[best]
        return outputs

    def table(columns: Columns, index: np.ndarray) -> Columns:
        label = np.asarray(run.data.rows["label"][:])[index]
        columns = {
            "class_name": np.asarray(label_space.class_names, dtype=object)[label],
            "label": np.asarray(label_space.first_indices)[label],
        } | {name: list(values) for name, values in columns.items()}
        if label_space.decision != "first":
            columns["right_indices"] = [list(label_space.right_indices[position]) for position in label]
            classes = zip(label_space.class_names, label_space.model_indices, strict=True)
            class_of = {index: name for name, indices in classes for index in indices}
            columns["predicted"] = [class_of.get(guesses[0]) for guesses in columns["top5_indices"]]
            return columns
        if label_space.has_several_indices:
            columns["labels"] = [list(label_space.model_indices[position]) for position in label]
        if checkpoint.training_classes is not None:
            columns["training_class"] = [checkpoint.was_trained_on(index) for index in columns["label"].tolist()]
        return columns

    return Measurement({PLAIN: run.images()}, step, table)


def outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether each image was classified correctly, in every way that the rows of a result tell.

    Returns:
        Bool columns: the figures of kind "hit" that have a meaning here.
    """
    label = frame["label"].to_numpy()[:, None]
    guesses = np.stack(frame["top5_indices"])  # (images, guesses)
    if "right_indices" in frame:
        hits = np.stack([np.isin(*pair) for pair in zip(guesses, frame["right_indices"], strict=True)])
    else:
        hits = guesses == label
    correct = {"top1": hits[:, 0], "top5": hits.any(axis=1)}
    if "subset_top5_indices" in frame:
        hits = np.stack(frame["subset_top5_indices"]) == label
        correct |= {"top1_subset": hits[:, 0], "top5_subset": hits.any(axis=1)}
    if "labels" in frame:
        pairs = zip(frame["top5_indices"], frame["labels"], strict=True)
        correct["top1_any"] = np.array([guesses[0] in labels for guesses, labels in pairs])
    correct |= {name: frame[name].to_numpy() for name in figures_of_kind("hit") if name in frame}
    return pd.DataFrame(correct, index=frame.index)


def accuracies(frame: pd.DataFrame) -> dict:
    """The accuracy figures of a result (percent), from the rows of all its measurements.

    `train_classes` and `held_out_classes` are None where the checkpoint records no training classes or the benchmark
    has no such class.
    """
    correct = outcomes(frame)
    low, high = accuracy_interval(correct["top1"].to_numpy(), object_groups(frame))
    figures = {name: 100 * float(correct[name].mean()) for name in correct.columns}
    figures["top1_ci95"] = [100 * low, 100 * high]
    groups = correct.groupby(frame["class_name"])
    figures["per_class"] = {name: _group_accuracy(group) for name, group in groups}
    if "group" in frame:
        figures["per_group"] = {name: _group_accuracy(group) for name, group in correct.groupby(frame["group"])}
    trained = frame.get("training_class")
    figures["train_classes"] = None if trained is None else _group_accuracy(correct[trained])
    figures["held_out_classes"] = None if trained is None else _group_accuracy(correct[~trained])
    return figures


def _group_accuracy(correct: pd.DataFrame) -> dict[str, float] | None:
    if correct.empty:
        return None
    return {
        "top1": 100 * float(correct["top1"].mean()),
        "top5": 100 * float(correct["top5"].mean()),
        "n": len(correct),
    }
