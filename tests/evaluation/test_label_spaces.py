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
    with pytest.raises(UserError, match=r"the first is 'landbird'; give a model with these classes\."):
        match_classes("waterbirds", ["landbird"], None, vit_config("cat", "dog"), can_be_renamed=False)


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


@pytest.fixture
def zoo():
    """A class of two, one of three, one alone; index 6 is in none."""
    return lambda decision: match_classes(
        "zoo", ["cat", "dog", "emu"], {"cat": (4, 1), "dog": (2, 0, 5), "emu": (3,)}, IMAGENET_CONFIG, decision
    )


LOGITS = torch.tensor([[1.0, 2.0, 1.5, 2.1, 0.0, 1.4, 3.0]])


def test_any_index_of_a_class_is_right_and_others_are_wrong(zoo):
    space = zoo("any")
    guesses, probabilities = space.guess(LOGITS, 2)
    assert guesses.tolist() == [[6, 3]] and space.right_indices == ((4, 1), (2, 0, 5), (3,))
    assert probabilities[0].tolist() == pytest.approx(LOGITS.softmax(1)[0, [6, 3]].tolist())
    assert not space.is_subset and zoo("first").is_subset and zoo("first").right_indices == ((4,), (2,), (3,))
    assert (space.name, zoo("first").name) == ("ImageNet indices, any of a class", "ImageNet indices")


def test_the_mean_probability_of_a_class_decides(zoo):
    space = zoo("mean")
    guesses, probabilities = space.guess(LOGITS, 5)
    odds = LOGITS.exp()[0].tolist()
    means = [(odds[4] + odds[1]) / 2, (odds[2] + odds[0] + odds[5]) / 3, odds[3]]
    # The emu, then the cat by index 1 and the dog by index 2, although the three dogs are likeliest in sum.
    assert sum(odds[index] for index in (2, 0, 5)) > odds[3] and means[2] > means[0] > means[1]
    assert guesses.tolist() == [[3, 1, 2]]
    assert probabilities[0].tolist() == pytest.approx([mean / sum(means) for mean in (means[2], means[0], means[1])])
