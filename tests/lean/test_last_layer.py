"""The last layer for the CLS token alone: where it may be, what it computes, and that it leaves no trace."""

import pytest
import torch
from tiny_models import FAMILIES, rerun_layers, tiny_model

from hf_robustvit.models.families import attention_of, layers_of
from hf_robustvit.relevance import explain


READS_CLS_ALONE = {"vit", "deit", "vit_msn"}


def tokens_seen(model):
    """A list that grows by the number of tokens in the last layer's queries, attention output and MLP."""
    seen = []
    layer = layers_of(model)[-1]
    attention = attention_of(layer)
    modules = (attention.q_proj, attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj, layer.mlp)
    for module in modules:
        module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    return seen


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_for_what_the_head_reads(family, attention):
    model, pixel_values = tiny_model(family), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.set_attn_implementation(attention)
    seen = tokens_seen(model)
    with torch.no_grad():
        wanted = model(pixel_values).logits
        tokens = seen.copy()
        found = explain(model, pixel_values).logits
        again = model(pixel_values).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, wanted)
    assert min(tokens) >= 16
    assert seen == tokens + ([1, 1, 1] if family in READS_CLS_ALONE else tokens) + tokens


def test_not_where_the_layer_is_run_again():
    model, pixel_values = tiny_model("vit").train(), torch.randn(2, 3, 32, 32)
    rerun_layers(model, use_reentrant=False)
    seen = tokens_seen(model)
    explain(model, pixel_values)
    assert set(seen) == {17}


def test_the_layer_is_whole_again_after_an_error():
    model = tiny_model("vit")
    with pytest.raises(ValueError, match="doesn't match model"):
        explain(model, torch.randn(1, 3, 64, 64))
    seen = tokens_seen(model)
    model(torch.randn(1, 3, 32, 32))
    assert seen == [17, 17, 17]
