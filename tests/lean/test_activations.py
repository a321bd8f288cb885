"""Recomputed activations: the same gradients in every precision, and what is not kept."""

import contextlib
import gc
import weakref

import pytest
import torch
from golden_numbers import relative_error
from torch import nn
from transformers.activations import ACT2FN

from hf_robustvit.lean import activations
from hf_robustvit.lean.activations import recompute_cheap_activations


def perceptron(approximate="none", dtype=torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 32), nn.GELU(approximate), nn.Linear(32, 8))
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    return model.to(dtype)


def gradients(model, context, forward=None) -> list[torch.Tensor]:
    """The gradients in the weights and in the input, after a first backward pass to the input alone."""
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    with context:
        output = (forward or model)(inputs).square().sum()
    (first,) = torch.autograd.grad(output, inputs, retain_graph=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [first, *torch.autograd.grad(output, [inputs, *weights])]


def assert_same_gradients(model, tolerance, forward=None):
    wanted = gradients(model, contextlib.nullcontext(), forward)
    found = gradients(model, recompute_cheap_activations(), forward)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert relative_error(one, other) < tolerance


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 0.01)]
)
def test_gradients(approximate, dtype, tolerance):
    assert_same_gradients(perceptron(approximate, dtype), tolerance)


def test_an_input_that_is_a_transposed_view():
    model = perceptron()

    def forward(inputs):  # as patches are, where no CLS token is put before them
        return model((2 * inputs).transpose(0, 1).contiguous().transpose(0, 1))

    assert_same_gradients(model, 1e-14, forward)


def test_gradients_under_autocast():
    model = perceptron(dtype=torch.float32)

    def forward(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs).float()

    assert_same_gradients(model, 0.01, forward)


class TransposedPart(nn.Module):
    """Some tokens of a norm's result, channels first, times a matrix."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8, dtype=torch.float64)
        self.matrix = nn.Parameter(torch.eye(2, 5, dtype=torch.float64) + 1)

    def forward(self, inputs):
        return self.norm(inputs)[:, 1:].transpose(1, 2) @ self.matrix  # (2, 8, 2) @ (2, 5)


def test_gradients_of_views():
    assert_same_gradients(TransposedPart(), 1e-14)


def test_gradients_with_frozen_weights():
    model = perceptron()
    for frozen in (model[0], model[1]):
        frozen.requires_grad_(False)
    assert_same_gradients(model, 1e-14)


@pytest.mark.parametrize(
    ("context", "kept"), [(contextlib.nullcontext, True), (recompute_cheap_activations, False)], ids=["kept", "lean"]
)
def test_the_results_of_gelu_and_layer_norm_are_not_kept(context, kept):
    model, results = perceptron(), []
    for module in (model[0], model[2]):
        module.register_forward_hook(lambda module, inputs, output: results.append(weakref.ref(output)))
    with context():
        output = model(torch.randn(2, 3, 8, dtype=torch.float64))
    gc.collect()
    assert output.requires_grad and [result() is not None for result in results] == [kept, kept]


def test_a_backward_pass_that_asks_for_no_weights():
    model = perceptron()
    model[2] = ACT2FN["gelu_10"]  # clips what GELU gives, and so reads it in its backward pass
    inputs = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    with recompute_cheap_activations() as recomputation:
        output = model(inputs).square().sum()
    weights = [inputs, *model.parameters()]
    with recomputation.left_out():
        (found,) = torch.autograd.grad(output, inputs, retain_graph=True)
        in_weight = torch.autograd.grad(output, model[1].weight, retain_graph=True)[0]
    wanted = torch.autograd.grad(model(inputs).square().sum(), weights)
    torch.testing.assert_close(found, wanted[0])
    assert in_weight.isnan().all()  # nobody asks for it there: its input was not computed again
    for one, other in zip(torch.autograd.grad(output, weights), wanted, strict=True):
        torch.testing.assert_close(one, other)


def wrong_recipe(node):
    return activations._gelu(node) + 1


@pytest.mark.parametrize(
    "recipes",
    [{}, {"GeluBackward0": lambda node: node._saved_renamed}, {"GeluBackward0": wrong_recipe}],
    ids=["other node", "other name", "other result"],
)
def test_another_torch_trains_without_recomputation(recipes, monkeypatch, caplog):
    monkeypatch.setattr(activations, "_RECOMPUTE", recipes)
    activations._graph_is_as_expected.cache_clear()
    for _ in range(2):
        assert_same_gradients(perceptron(), 1e-14)
    activations._graph_is_as_expected.cache_clear()
    (record,) = caplog.records
    assert "activations are kept instead of recomputed" in record.getMessage()


def test_the_check_passes_here_whatever_the_mode(caplog):
    for context in (torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)):
        activations._graph_is_as_expected.cache_clear()
        with context():
            assert activations._graph_is_as_expected()
    assert not caplog.records
