"""Lean attention against eager attention, the authors' numbers and finite differences; what it keeps and refuses."""

from types import SimpleNamespace

import golden_numbers
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_models import FAMILIES, SQUARE, rerun_layers, tiny_model
from torch.nn.parallel import DistributedDataParallel

from hf_robustvit import load_classifier
from hf_robustvit.errors import UserError
from hf_robustvit.lean import propagation as lean
from hf_robustvit.lean.attention import LeanAttention, _PlainAttention
from hf_robustvit.losses import GradMaskLoss, RobustViTLoss, RRRLoss
from hf_robustvit.relevance import explain
from hf_robustvit.relevance.gae import propagate


ATTENTIONS = ("eager", "lean")


def model_with(attention, family="vit", **overrides):
    model = tiny_model(family, **{"num_hidden_layers": 3, **overrides})
    model.set_attn_implementation(attention)
    return model


def batch(size=(32, 32)):
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(3, 3, *size, generator=generator)
    masks = torch.rand(3, 1, *size, generator=generator)
    return pixel_values, masks, torch.tensor([4, 0, 2])


def gradients(model, size=(32, 32)):
    """The loss, and its gradient in every trained parameter that it depends on."""
    loss = RobustViTLoss()(model, *batch(size)).loss
    loss.backward()
    return loss.item(), {
        name.removeprefix("module."): parameter.grad
        for name, parameter in model.named_parameters()
        # Softmax does not see a key bias: its gradient is rounding error.
        if parameter.grad is not None and not name.endswith(("k_proj.bias", "key.bias"))
    }


def assert_same_gradients(found, wanted, tolerance=2e-5):
    assert found[0] == pytest.approx(wanted[0], abs=max(2e-6, tolerance / 10))
    assert found[1].keys() == wanted[1].keys()
    for name in wanted[1]:
        assert golden_numbers.relative_error(found[1][name], wanted[1][name]) < tolerance, name


def test_maps_equal_the_released_code():
    numbers = {name: torch.from_numpy(value) for name, value in golden_numbers.arrays().items()}
    pixel_values, _, labels = golden_numbers.batch()
    model = golden_numbers.model()
    model.set_attn_implementation("lean")
    for found, relevance, raw, stride in (
        (explain(model, pixel_values, target=labels), "relevance_gt", "raw_gt", 1),
        (explain(model, pixel_values), "relevance_pred_stride8", "raw_pred", 8),
    ):
        found_relevance = found.relevance[:, :, ::stride, ::stride]
        torch.testing.assert_close(found_relevance, numbers[relevance], rtol=0, atol=5e-6)
        error = (found.patch_relevance.flatten(1) - numbers[raw]).abs().max()
        assert error < 5e-6 * numbers[raw].max()
        torch.testing.assert_close(found.logits, numbers["logits"], rtol=0, atol=5e-6)


def test_maps_equal_the_released_code_in_float64():
    pixel_values, _, labels = golden_numbers.batch(torch.float64)
    model = golden_numbers.model(torch.float64)
    model.set_attn_implementation("lean")
    found = explain(model, pixel_values, target=labels).patch_relevance.flatten(1)
    wanted = torch.from_numpy(golden_numbers.arrays()["raw_gt_float64"])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6 * wanted.max().item())


def test_five_steps_equal_the_released_code():
    expected, model = golden_numbers.expected()["main"], golden_numbers.model()
    model.set_attn_implementation("lean")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for step in range(5):
        out = RobustViTLoss()(model, *golden_numbers.batch())
        optimizer.zero_grad()
        out.loss.backward()
        assert out.loss.item() == pytest.approx(expected["tot_loss"][step], abs=2e-6)
        assert out.terms["relevance"].item() == pytest.approx(expected["segmentation_loss"][step], abs=2e-6)
        if step == 0:
            for name, parameter in model.named_parameters():
                if not name.endswith("k_proj.bias"):
                    wanted = expected["grad_norm"][name]
                    assert parameter.grad.norm().item() == pytest.approx(wanted, rel=2e-5), name
                if (key := f"main.grad.{name}") in golden_numbers.arrays():
                    wanted = torch.from_numpy(golden_numbers.arrays()[key])
                    assert golden_numbers.relative_error(parameter.grad, wanted) < 2e-5, name
        optimizer.step()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_eager(family, train):
    size = (32, 32) if family in SQUARE else (32, 48)
    shape = {} if family.startswith("dinov2") or family in SQUARE else {"image_size": size, "patch_size": (8, 16)}
    eager, found = (model_with(attention, family, **shape).train(train) for attention in ATTENTIONS)
    for start_layer in (0, 2):
        wanted = explain(eager, batch(size)[0], start_layer=start_layer)
        actual = explain(found, batch(size)[0], start_layer=start_layer)
        torch.testing.assert_close(actual.patch_relevance, wanted.patch_relevance, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(actual.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    tolerance = 4e-5 if family == "beit" else 2e-5  # its map is nearly constant here
    assert_same_gradients(gradients(found, size), gradients(eager, size), tolerance)


@pytest.mark.parametrize("bias_shape", [None, (1, 3, 5, 5), (2, 1, 5, 5)])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)])
@pytest.mark.parametrize("at_a_time", [1, 30, 75, 2**20])  # a query, two queries, an image, all
def test_one_layer_equals_the_written_out_map_and_finite_differences(rows, at_a_time, bias_shape, monkeypatch):
    monkeypatch.setitem(lean.ATTENTIONS_AT_A_TIME, "cpu", at_a_time)
    generator = torch.Generator().manual_seed(0)
    query, key, value, gradient = torch.randn(4, 2, 3, 5, 4, dtype=torch.float64, generator=generator)
    relevance = torch.rand(2, 5, dtype=torch.float64, generator=generator)[:, rows]
    biases = [torch.randn(bias_shape, dtype=torch.float64, generator=generator)] if bias_shape else []
    attention = (0.7 * query @ key.transpose(2, 3) + sum(biases)).softmax(-1)
    wanted = propagate(relevance, attention, gradient @ value.transpose(2, 3), rows)

    def found(relevance, query, key, *biases):
        layer = LeanAttention(query, key, value, (attention @ value).transpose(1, 2), 0.7, 0.0, *biases)
        return lean.propagate_lean(relevance, layer, gradient.transpose(1, 2), rows)

    torch.testing.assert_close(found(relevance, query, key, *biases), wanted)
    assert torch.autograd.gradcheck(found, [tensor.requires_grad_() for tensor in (relevance, query, key, *biases)])


def test_no_attention_map_is_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        RobustViTLoss()(model_with("lean"), *batch())
    assert kept and not [shape for shape in kept if shape[-2:] == (17, 17)]


def test_outside_explain_it_is_sdpa():
    wanted, found = (model_with(attention)(batch()[0]) for attention in ("sdpa", "lean"))
    assert torch.equal(found.logits, wanted.logits)
    assert found.attentions is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_callers_without_gradients(context):
    model, wanted = model_with("lean"), explain(model_with("eager"), batch()[0])
    with context():
        found = explain(model, batch()[0])
    torch.testing.assert_close(found.relevance, wanted.relevance, rtol=1e-5, atol=1e-5)
    assert not found.relevance.requires_grad


def test_frozen_layers():
    models = [model_with(attention) for attention in ATTENTIONS]
    for model in models:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "embeddings" not in name and "layers.0" not in name
    assert_same_gradients(gradients(models[1]), gradients(models[0]))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", ["vit", "clip"])  # CLIP's first layer, which runs again, is given a norm's result
def test_gradient_checkpointing(attention, family):
    wanted = gradients(model_with(attention, family).train())
    model = model_with(attention, family).train()
    rerun_layers(model, use_reentrant=False)
    assert_same_gradients(gradients(model), wanted)
    rerun_layers(model, use_reentrant=True)
    with pytest.raises(UserError, match="use_reentrant=False"):
        explain(model, batch()[0])


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps the precision of the process's first Accelerator, which another test may have made."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_mixed_precision_of_accelerate(attention, fresh_accelerate):
    model = Accelerator(mixed_precision="bf16", cpu=True).prepare(model_with(attention))
    pixel_values, _, labels = batch()
    with torch.no_grad():
        found, wanted = (explain(which, pixel_values, target=labels) for which in (model, model_with("eager")))
    assert found.relevance.dtype == found.patch_relevance.dtype == torch.float32
    assert golden_numbers.relative_error(found.patch_relevance, wanted.patch_relevance) < 0.05
    assert_same_gradients(gradients(model), gradients(model_with("eager")), tolerance=0.3)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast(attention, dtype, tolerance):
    """float16 as it would run on a GPU: accelerate's --fp16 does nothing on a CPU."""
    with torch.no_grad():
        wanted = explain(model_with("eager"), batch()[0])
        with torch.autocast("cpu", dtype):
            found = explain(model_with(attention), batch()[0], target=wanted.target)
    assert found.logits.dtype == dtype and found.relevance.dtype == torch.float32
    assert golden_numbers.relative_error(found.patch_relevance, wanted.patch_relevance) < tolerance


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_distributed_data_parallel(attention, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = gradients(DistributedDataParallel(model_with(attention)))
    finally:
        torch.distributed.destroy_process_group()
    assert_same_gradients(found, gradients(model_with("eager")))


@pytest.mark.parametrize(
    "loss",
    [
        RobustViTLoss(second_order=True),
        GradMaskLoss(lambda_background=1, lambda_classification=1),
        RRRLoss(lambda_background=1, lambda_classification=1),
    ],
)
def test_second_order_is_refused(loss):
    with pytest.raises(UserError, match="second_order is on, but lean .* attention='eager'"):
        loss(model_with("lean"), *batch())


def test_attention_dropout_is_refused_in_training_alone():
    model = model_with("lean", attention_probs_dropout_prob=0.1)
    wanted = explain(model_with("eager"), batch()[0])
    torch.testing.assert_close(explain(model, batch()[0]).relevance, wanted.relevance, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="drops 10% of its attention .* attention='eager'"):
        explain(model.train(), batch()[0])


@pytest.mark.parametrize(
    ("asked", "dropout", "given"), [("lean", 0, "lean"), ("auto", 0, "lean"), ("auto", 0.1, "eager")]
)
def test_loading_with_an_attention_function(asked, dropout, given, tmp_path):
    tiny_model("vit", attention_probs_dropout_prob=dropout).save_pretrained(tmp_path)
    model, _ = load_classifier(tmp_path, attention=asked)
    assert model.config._attn_implementation == given
    assert explain(model, batch()[0]).relevance.amax() == 1


@pytest.mark.parametrize(
    ("image_size", "dtype", "free", "given"),
    [
        (160, None, 2**36, "lean_kept_maps"),  # 401 tokens
        (160, None, 2**26, "lean"),
        (32, None, 2**36, "lean"),
        (32, torch.bfloat16, 2**36, "eager"),
        (160, torch.bfloat16, 2**26, "lean"),
    ],
)
def test_the_attention_is_chosen_by_tokens_precision_and_memory(image_size, dtype, free, given, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    tiny_model("vit", image_size=image_size).save_pretrained(tmp_path)
    model, _ = load_classifier(tmp_path, attention="auto", dtype=dtype)
    assert model.config._attn_implementation == given


def test_kept_maps_change_no_number():
    kept, recomputed = (gradients(model_with(attention)) for attention in ("lean_kept_maps", "lean"))
    assert kept[0] == recomputed[0]
    assert all(torch.equal(kept[1][name], gradient) for name, gradient in recomputed[1].items())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        RobustViTLoss()(model_with("lean_kept_maps"), *batch())
    assert len([shape for shape in kept if len(shape) == 4 and shape[-1] == 17]) == 6, "two of each layer"


@pytest.mark.parametrize("at_a_time", [1, 2**19])
def test_plain_products_in_bfloat16_are_sdpa(at_a_time, monkeypatch):
    monkeypatch.setitem(lean.ATTENTIONS_AT_A_TIME, "cpu", at_a_time)
    generator = torch.Generator().manual_seed(0)
    query, key, value, outer = torch.randn(4, 2, 3, 9, 8, dtype=torch.float64, generator=generator)
    wanted_inputs = [tensor.requires_grad_() for tensor in (query[:, :, :4], key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(*wanted_inputs, scale=0.3)
    inputs = [tensor.detach().bfloat16().requires_grad_() for tensor in wanted_inputs]
    found = _PlainAttention.apply(*inputs, 0.3)
    pairs = [(found, wanted)]
    outer = outer[:, :, :4]
    pairs += zip(
        torch.autograd.grad(found, inputs, outer.bfloat16()),
        torch.autograd.grad(wanted, wanted_inputs, outer),
        strict=True,
    )
    assert all(golden_numbers.relative_error(one.detach().double(), other.detach()) < 0.01 for one, other in pairs)
