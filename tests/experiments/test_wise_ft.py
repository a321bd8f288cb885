import pytest
import torch
from tiny_models import FAMILIES, tiny_model

from hf_robustvit.errors import UserError
from hf_robustvit.experiments.wise_ft import interpolate_weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_every_weight_lies_between(family, share):
    before, after = tiny_model(family), tiny_model(family, seed=1)
    kept = {name: weight.clone() for name, weight in after.state_dict().items()}
    mixed = interpolate_weights(before, after, share)
    for name, weight in mixed.state_dict().items():
        torch.testing.assert_close(weight, (1 - share) * before.state_dict()[name] + share * kept[name])
        assert torch.equal(after.state_dict()[name], kept[name]), "the fine-tuned model must not change"
    end = {0: before, 1: after}.get(share)
    if end:
        pixels = torch.randn(2, 3, 32, 32)
        assert torch.equal(mixed(pixels).logits, end(pixels).logits)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_range(share):
    with pytest.raises(UserError, match=f"share is {share}, .*from 0 to 1"):
        interpolate_weights(tiny_model("vit"), tiny_model("vit"), share)


@pytest.mark.parametrize(
    "other, sentence",
    [
        (lambda: tiny_model("deit"), "different names or shapes"),
        (lambda: tiny_model("vit", hidden_size=16), "different names or shapes"),
        (lambda: tiny_model("vit", num_hidden_layers=3), "different names or shapes"),
        (lambda: tiny_model("vit", id2label={index: f"pet{index}" for index in range(5)}), "different classes"),
    ],
)
def test_models_between_which_nothing_lies(other, sentence):
    with pytest.raises(UserError, match=sentence):
        interpolate_weights(tiny_model("vit"), other(), 0.5)
