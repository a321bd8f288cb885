import pytest
import torch
from transformers import ViTConfig

from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.imagenet_classes import LEMMAS, WNIDS


def vit_config(*names: str) -> ViTConfig:
    return ViTConfig(id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)})


IMAGENET_CONFIG = ViTConfig(num_labels=1000)


def test_names_are_matched_with_the_models_own_whatever_their_order():
    space = match_classes("pets", ["dog", "cat"], None, vit_config("cat", "cow", "dog"))
    assert space.model_indices == ((2,), (0,))
    assert (space.name, space.is_subset, space.has_several_indices) == ("model label names", True, False)


def test_a_data_set_with_all_the_models_classes_is_no_subset():
    assert not match_classes("pets", ["dog", "cat"], None, vit_config("cat", "dog")).is_subset


def test_an_imagenet_model_also_knows_wnids():
    space = match_classes("mine", ["n01443537", "n01440764"], None, IMAGENET_CONFIG)
    assert space.model_indices == ((1,), (0,))


def test_a_class_the_model_lacks_is_named_and_counted():
    with pytest.raises(UserError, match=r"--dataset pets: 2 of its 3 classes .* 2 classes of the model.*'emu'.*'cat'"):
        match_classes("pets", ["dog", "emu", "gnu"], None, vit_config("cat", "dog"))


def test_an_imagenet_data_set_needs_an_imagenet_model():
    with pytest.raises(UserError, match="--dataset imagenet-a: .*1000, and the model has 2"):
        match_classes("imagenet-a", ["n0"], {"n0": (6,)}, vit_config("cat", "dog"))


def test_a_thousand_classes_of_ones_own_are_not_imagenets():
    species = vit_config(*(f"species {index:04d}" for index in range(1000)))
    with pytest.raises(UserError, match="--dataset imagenet-a: .*has 1000 of its own, such as 'species 0000'"):
        match_classes("imagenet-a", ["n01440764"], {"n01440764": (0,)}, species)
    with pytest.raises(UserError, match="1 of its 1 classes are not among the 1000"):
        match_classes("mine", ["n01440764"], None, species)


def test_imagenet_indices_are_mapped_to_the_heads_order():
    reversed_head = vit_config(*reversed(WNIDS))
    space = match_classes("objectnet", ["tie", "oven"], {"oven": (766,), "tie": (457, 906)}, reversed_head)
    assert space.model_indices == ((542, 93), (233,))


def test_a_name_of_two_classes_names_the_data_set():
    with pytest.raises(UserError, match="--dataset birds: the model has 2 classes called 'crane', 134 .* and 517 "):
        match_classes("birds", ["crane"], None, vit_config(*LEMMAS))


def test_imagenet_indices_are_taken_as_given():
    space = match_classes("objectnet", ["tie", "oven"], {"oven": (766,), "tie": (457, 906)}, IMAGENET_CONFIG)
    assert space.model_indices == ((457, 906), (766,))
    assert space.first_indices == (457, 766)
    assert (space.name, space.is_subset, space.has_several_indices) == ("ImageNet indices", True, True)


def test_restriction_takes_the_best_of_a_classs_indices():
    space = match_classes(
        "objectnet", ["tie", "oven", "pen"], {"tie": (4, 1), "oven": (2,), "pen": (0, 3, 5)}, IMAGENET_CONFIG
    )
    logits = torch.tensor([[0.0, 7.0, 5.0, 1.0, 2.0, 3.0, 99.0]])
    assert space.restrict(logits).tolist() == [[7.0, 5.0, 3.0]]
