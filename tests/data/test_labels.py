"""How a training set's classes find a model's, and which heads are ImageNet's."""

import datasets
import numpy as np
import pytest
from tiny_models import tiny_model

from hf_robustvit.data import class_wnids, model_classes, relabel
from hf_robustvit.data.labels import imagenet_classes
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import LEMMAS, NAMES, WNIDS


USUAL = tuple(range(1000))
SHUFFLED = tuple(np.random.default_rng(0).permutation(1000).tolist())
FIRST_NAMES = tuple(lemmas.split(",")[0] for lemmas in LEMMAS)  # two cranes, two maillots


def make_config(names):
    config = tiny_model("vit", num_labels=len(names)).config
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    return config


def test_names_are_found_wherever_they_stand():
    assert model_classes(["dog", "ant"], make_config(["ant", "bee", "dog"])) == [2, 0]


def test_an_unknown_name_asks_for_a_new_head():
    assert model_classes(["ant", "cow"], make_config(["ant", "bee", "dog"])) is None


def test_wnids_mean_imagenets_classes():
    imagenet = make_config([f"class {index}" for index in range(1000)])
    assert model_classes([WNIDS[7], WNIDS[999]], imagenet) == [7, 999]
    assert model_classes([WNIDS[7]], make_config(["ant"])) is None


def test_relabel_keeps_the_rows():
    config = make_config(["ant", "bee", "dog"])
    rows = datasets.Dataset.from_dict(
        {"image_id": ["a", "b", "c"], "label": [0, 1, 0]},
        features=datasets.Features(
            {"image_id": datasets.Value("string"), "label": datasets.ClassLabel(names=["dog", "ant"])}
        ),
    )
    relabelled = relabel(rows, [2, 0], config)
    assert relabelled["label"][:] == [2, 0, 2]
    assert relabelled["image_id"][:] == ["a", "b", "c"]
    assert relabelled.features["label"].names == ["ant", "bee", "dog"]


@pytest.mark.parametrize(
    "labels",
    [
        WNIDS,
        LEMMAS,
        NAMES,
        FIRST_NAMES,
        [f"LABEL_{index}" for index in USUAL],
        [f"{wnid} {name}" for wnid, name in zip(WNIDS, NAMES, strict=True)],
        [lemmas.upper().replace(" ", "_") for lemmas in LEMMAS],
        [f"mine {index}" if index < 400 else name for index, name in enumerate(NAMES)],
    ],
)
def test_the_usual_order_is_known_by_any_usual_labels(labels):
    assert imagenet_classes(make_config(labels)) == USUAL


@pytest.mark.parametrize("labels", [WNIDS, LEMMAS, NAMES])
@pytest.mark.parametrize("alphabetical", [True, False])
def test_another_order_is_found_by_the_labels(labels, alphabetical):
    order = sorted(USUAL, key=labels.__getitem__) if alphabetical else SHUFFLED
    found = imagenet_classes(make_config([labels[index] for index in order]))
    assert [index for index in found if labels[index] != "crane"] == [i for i in order if labels[i] != "crane"]
    config = make_config([labels[index] for index in order])
    assert model_classes([WNIDS[7], WNIDS[999]], config) == [order.index(7), order.index(999)]


@pytest.mark.parametrize(
    "labels",
    [
        WNIDS[:999],
        [*WNIDS, "background"],
        [f"species {index:04d}" for index in USUAL],
        [f"LABEL_{index + 1}" for index in USUAL],
        [NAMES[index] if index % 5 else f"mine {index}" for index in SHUFFLED],
    ],
)
def test_what_is_not_imagenets_head(labels):
    config = make_config(labels)
    assert imagenet_classes(config) is class_wnids(config) is None
    assert model_classes([labels[3]], config) == [3]
    assert model_classes(["n15075141"], config) is None or "n15075141" in labels


def test_a_name_of_two_classes_is_refused_with_both_readings():
    with pytest.raises(UserError) as caught:
        model_classes(["crane", "goldfish, Carassius auratus"], make_config(LEMMAS))
    assert str(caught.value) == (
        "--dataset: the model has 2 classes called 'crane', 134 (n02012849, crane (bird)) and "
        "517 (n03126707, crane (machine)): say n02012849 or n03126707 instead."
    )
    assert model_classes(["n03126707", "crane (134)"], make_config(LEMMAS)) == [517, 134]
    with pytest.raises(UserError, match=r"called 'spot', 0 and 2: say 'spot \(0\)' or 'spot \(2\)' instead"):
        model_classes(["spot"], make_config(["spot", "dot", "spot"]))


def test_relabel_tells_classes_of_one_name_apart():
    config = make_config(LEMMAS)
    features = {"image_id": datasets.Value("string"), "label": datasets.ClassLabel(names=["n02012849", "n03126707"])}
    columns = {"image_id": ["a", "b"], "label": [0, 1]}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    relabelled = relabel(rows, model_classes(["n02012849", "n03126707"], config), config)
    names = relabelled.features["label"].int2str(relabelled["label"][:])
    assert names == ["crane (134)", "crane (517)"]
