"""How class names meet the classes of a model. A class is its index; names are for people, and may occur twice."""

import collections
import functools
import logging
import re
from collections.abc import Mapping, Sequence

import datasets
import numpy as np
from scipy.optimize import linear_sum_assignment
from transformers import PretrainedConfig

from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import LEMMAS, NAMES, WNIDS


logger = logging.getLogger(__name__)

# Labels that carry no meaning: transformers' defaults, and others that only count.
_GENERIC = re.compile(r"(?:label|class|c)?[ _-]?(\d+)", re.IGNORECASE)
_WNID = re.compile(r"n\d{8}")


def imagenet_classes(config: PretrainedConfig) -> tuple[int, ...] | None:
    """The ImageNet index of each class of a model, found by its labels.

    A label says its wnid, or some of the names that WordNet has for the class, in any case and between commas. The
    labels are matched with the 1000 classes one to one, so that the names they share are as many as possible; what
    stays open, as between the two cranes, is taken to follow ImageNet's order. The head is then

    - in the order found, the usual one or another, if every label shares a name with its class;
    - in the usual order, if half the labels do, and hardly any of them is at another index: the names are the
      author's own;
    - in the usual order, if the labels only count (LABEL_0, LABEL_1, ...), which is how converters leave it;
    - not ImageNet's otherwise.

    Args:
        config: The model's configuration.

    Returns:
        For each of the model's classes one ImageNet index, every index once; `None` if the head is not ImageNet's.
    """
    if config.num_labels != len(WNIDS):
        return None
    return _imagenet_order(tuple(config.id2label[index] for index in range(len(WNIDS))))


@functools.lru_cache
def _imagenet_order(labels: tuple[str, ...]) -> tuple[int, ...] | None:
    usual = np.arange(len(WNIDS))
    counted = [_GENERIC.fullmatch(label) for label in labels]
    if all(match and int(match[1]) == index for index, match in enumerate(counted)):
        logger.info("The model's 1000 labels only count (%s, ...): they are taken for ImageNet's classes.", labels[0])
        return tuple(usual.tolist())
    similarity = _similarity(labels)
    # Far below any difference of similarities, and largest where the order is kept.
    order = linear_sum_assignment(similarity + 1e-12 * np.outer(usual, usual), maximize=True)[1]
    matched = similarity[usual, order] > 0
    elsewhere = matched & (order != usual)
    at_home = int((similarity.diagonal() > 0).sum())
    if matched.all():
        if elsewhere.any():
            logger.info("The model knows ImageNet's 1000 classes in another order, which is found by its labels.")
        return tuple(order.tolist())
    if 2 * at_home >= len(WNIDS) and 20 * elsewhere.sum() <= at_home:
        return tuple(usual.tolist())
    return None


def _similarity(labels: Sequence[str]) -> np.ndarray:
    """(labels, ImageNet classes): the share of the names of both that they have in common, 1 for the same wnid."""
    known = [{wnid} for wnid in WNIDS]
    named = [_names(f"{lemmas}, {name}") for lemmas, name in zip(LEMMAS, NAMES, strict=True)]
    classes = collections.defaultdict(list)
    for index, names in enumerate(map(set.union, known, named)):
        for name in names:
            classes[name].append(index)
    similarity = np.zeros((len(labels), len(WNIDS)))
    for row, label in enumerate(labels):
        wnid = _WNID.match(label)
        names = {wnid[0]} if wnid else _names(label)
        for index in {index for name in names for index in classes[name]}:
            similarity[row, index] = 1 if wnid else len(names & named[index]) / len(names | named[index])
    return similarity


def _names(label: str) -> set[str]:
    """The names in a label, as they are (Cardigan is a dog) and without case, hyphens, underscores and brackets."""
    names = {name.strip() for name in label.split(",")}
    return (names | {re.sub(r"[\W_]+", " ", name.casefold()).strip() for name in names}) - {""}


def text_classes(class_names: Sequence[str]) -> list[str]:
    """The classes of a CLIP-type model for a data set: its own, or ImageNet's 1000 where these are wnids."""
    return list(NAMES) if set(class_names) <= set(WNIDS) else list(class_names)


def class_wnids(config: PretrainedConfig) -> tuple[str, ...] | None:
    """The wnid of each class of a model; `None` if its classes are not ImageNet's."""
    order = imagenet_classes(config)
    return order and tuple(WNIDS[index] for index in order)


def distinct_class_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The class names by index, those that occur more than once (ImageNet has two cranes) with their index."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    times = collections.Counter(names)
    return tuple(f"{name} ({index})" if times[name] > 1 else name for index, name in enumerate(names))


def classes_by_name(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """The names of a model's classes, each with the classes it stands for: several if a label occurs more than once.

    The names are the labels, the distinct names, and for ImageNet's classes the wnids.

    Args:
        config: The model's configuration.
    """
    known = collections.defaultdict(tuple)
    for index in range(config.num_labels):
        known[config.id2label[index]] += (index,)
    unique = [*enumerate(distinct_class_names(config)), *enumerate(class_wnids(config) or ())]
    return {**known, **{name: (index,) for index, name in unique}}


def class_named(
    name: str, known: Mapping[str, tuple[int, ...]], config: PretrainedConfig, flag: str = "--dataset"
) -> int:
    """The model's class for a name that it knows.

    Args:
        name: A key of `known`.
        known: What `classes_by_name` gives for the model.
        config: The model's configuration.
        flag: Where the name was given, for the message.

    Raises:
        UserError: Several classes of the model have that name.
    """
    indices = known[name]
    if len(indices) == 1:
        return indices[0]
    wnids, order, distinct = class_wnids(config), imagenet_classes(config), distinct_class_names(config)
    readings = [f"{index} ({wnids[index]}, {NAMES[order[index]]})" if wnids else str(index) for index in indices]
    instead = [wnids[index] if wnids else repr(distinct[index]) for index in indices]
    raise UserError(
        f"{flag}: the model has {len(indices)} classes called {name!r}, {' and '.join(readings)}: "
        f"say {' or '.join(instead)} instead."
    )


def model_classes(class_names: Sequence[str], config: PretrainedConfig) -> list[int] | None:
    """The model's class for each class of a data set.

    Args:
        class_names: The data set's classes, in label order.
        config: The model's configuration.

    Returns:
        One class index for each name; `None` if the model does not know all of them, and so needs a new head.

    Raises:
        UserError: The model knows them all, but has several classes of one name.
    """
    known = classes_by_name(config)
    return [class_named(name, known, config) for name in class_names] if set(class_names) <= set(known) else None


def relabel(dataset: datasets.Dataset, indices: Sequence[int], config: PretrainedConfig) -> datasets.Dataset:
    """Replace a data set's labels by the model's classes.

    Args:
        dataset: Rows with `label`, an index into its own class names.
        indices: The model's class for each of them, as `model_classes` gives it.
        config: The model's configuration.
    """
    labels = [indices[label] for label in dataset["label"]]
    names = datasets.ClassLabel(names=list(distinct_class_names(config)))
    return dataset.remove_columns("label").add_column("label", labels, feature=names)
