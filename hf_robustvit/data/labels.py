"""How the class names of a training set meet the classes of a model."""

from collections.abc import Sequence

import datasets
from transformers import PretrainedConfig

from hf_robustvit.imagenet_classes import WNIDS


def classes_by_name(config: PretrainedConfig) -> dict[str, int]:
    """The names a model's classes go by: its own label names, and wnids where it has ImageNet's 1000 classes.

    Args:
        config: The model's configuration.
    """
    wnids = {wnid: index for index, wnid in enumerate(WNIDS)} if config.num_labels == len(WNIDS) else {}
    return {**config.label2id, **wnids}


def model_classes(class_names: Sequence[str], config: PretrainedConfig) -> list[int] | None:
    """The model's class for each class of a data set.

    Args:
        class_names: The data set's classes, in label order.
        config: The model's configuration.

    Returns:
        One class index for each name; `None` if the model does not know all of them, and so needs a new head.
    """
    known = classes_by_name(config)
    return [known[name] for name in class_names] if set(class_names) <= set(known) else None


def relabel(dataset: datasets.Dataset, indices: Sequence[int], config: PretrainedConfig) -> datasets.Dataset:
    """Replace a data set's labels by the model's classes.

    Args:
        dataset: Rows with `label`, an index into its own class names.
        indices: The model's class for each of them, as `model_classes` gives it.
        config: The model's configuration.
    """
    labels = [indices[label] for label in dataset["label"]]
    names = [config.id2label[index] for index in range(config.num_labels)]
    return dataset.remove_columns("label").add_column("label", labels, feature=datasets.ClassLabel(names=names))
