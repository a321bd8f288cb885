"""How a training set's classes find a model's."""

import datasets
from tiny_models import tiny_model

from hf_robustvit.data import model_classes, relabel
from hf_robustvit.imagenet_classes import WNIDS


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
