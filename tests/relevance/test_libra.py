"""LibraGrad's rules against a forward pass whose factors are detached, and against what they promise: completeness."""

import contextlib
import math

import pytest
import torch
from plain_read_out import read_rows
from tiny_models import FAMILIES, rerun_layers, tiny_model
from torch import nn
from torch.nn import functional

from hf_robustvit import load_classifier
from hf_robustvit.errors import UserError
from hf_robustvit.losses import RobustViTLoss
from hf_robustvit.models.families import head_reads, image_config
from hf_robustvit.models.patches import patch_layout
from hf_robustvit.relevance import explain
from hf_robustvit.relevance.libra import libra_rules


ACTIVATIONS = ("gelu", "gelu_python", "gelu_pytorch_tanh", "gelu_new", "quick_gelu", "silu")


def images(count=3, size=(32, 32), seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def gate(activation, x):
    """The factor that an activation multiplies its input by."""
    if activation in ("gelu", "gelu_python"):
        return (1 + torch.erf(x / math.sqrt(2))) / 2
    if activation in ("gelu_pytorch_tanh", "gelu_new"):
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return torch.sigmoid({"quick_gelu": 1.702, "silu": 1}[activation] * x)


@contextlib.contextmanager
def detached_factors(monkeypatch, model):
    """A context in whose forward passes deviations, gates and attention weights are constants; yields the weights."""
    weights = []

    def layer_norm(self, x):
        deviation = (x.var(dim=-1, correction=0, keepdim=True) + self.eps).sqrt().detach()
        return (x - x.mean(dim=-1, keepdim=True)) / deviation * self.weight + self.bias

    def softmax(scores, dim, dtype=None):
        weights.append(torch.exp(scores - torch.logsumexp(scores, dim, keepdim=True)).detach().requires_grad_())
        return weights[-1]

    with monkeypatch.context() as patch:
        patch.setattr(nn.LayerNorm, "forward", layer_norm)
        patch.setattr(functional, "softmax", softmax)
        patch.setattr(functional, "normalize", lambda x, dim: x / x.norm(dim=dim, keepdim=True).detach())
        name = getattr(image_config(model.config), "hidden_act", "gelu")
        for module in model.modules():
            if type(module).__module__ == "transformers.activations":
                swiglu = getattr(model.config, "use_swiglu_ffn", False)
                factor = (lambda x: functional.silu(x).detach()) if swiglu else (lambda x: x * gate(name, x).detach())
                patch.setattr(module, "forward", factor)
        yield weights


def plain_map(monkeypatch, model, pixel_values, target, start_layer=0):
    """Eq. 6-7 by whole matrices, image by image, with gradients under the detached factors: the rows that are read."""
    rows = []
    for image, index in zip(pixel_values, target, strict=True):
        with detached_factors(monkeypatch, model) as weights:
            score = model(image[None]).logits[0, index]
        relevance = torch.eye(weights[0].shape[-1], dtype=image.dtype)

        def factor(maps, score=score):  # (..., heads, rows, tokens)
            (gradient,) = torch.autograd.grad(score, maps, retain_graph=True)
            return (maps * gradient).clamp(min=0).unflatten(0, (1, -1)).flatten(1, -3).mean(dim=1)

        num_layers = image_config(model.config).num_hidden_layers
        for attention in weights[start_layer:num_layers]:
            relevance = relevance + factor(attention)[0] @ relevance
        # What follows the layers' is of SigLIP's pooling, which its classification head does not read.
        pools = head_reads(model) == "attention pooling"
        pooling = factor(weights[num_layers])[:, 0] if pools else None
        rows.append(read_rows(model, relevance[None], index[None], pooling))
    return torch.cat(rows).detach()


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_is_that_of_detached_factors(monkeypatch, family, attention):
    model = tiny_model(family, num_hidden_layers=3)
    target, prefix = torch.tensor([4, 0, 2]), patch_layout(model.config).num_prefix_tokens
    for start_layer in (0, 1):
        model.set_attn_implementation("eager")
        wanted = plain_map(monkeypatch, model, images(), target, start_layer)[:, prefix:]
        model.set_attn_implementation(attention)
        found = explain(model, images(), target, "libra", start_layer=start_layer)
        torch.testing.assert_close(found.patch_relevance.flatten(1), wanted, rtol=1e-5, atol=1e-5)
        difference = explain(model, images(), target).patch_relevance.flatten(1) - wanted
        assert difference.abs().max() > 1e-3 * wanted.max()


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "swiglu"])
def test_every_activation_has_its_gate_held(monkeypatch, activation, attention):
    if activation == "swiglu":
        model = tiny_model("dinov2", use_swiglu_ffn=True)
    else:
        model = tiny_model("vit", hidden_act=activation)
    target = torch.tensor([4, 0, 2])
    wanted = plain_map(monkeypatch, model, images(), target)[:, 1:]
    model.set_attn_implementation(attention)
    found = explain(model, images(), target, "libra").patch_relevance
    torch.testing.assert_close(found.flatten(1), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("family, overrides", [*((f, {}) for f in FAMILIES), ("dinov2", {"use_swiglu_ffn": True})])
def test_inputs_and_biases_times_their_gradients_add_up_to_the_score(family, overrides, attention):
    model = tiny_model(family, **overrides).double()
    model.set_attn_implementation(attention)
    pixel_values = images(1).double().requires_grad_()
    added = {name: one for name, one in model.named_parameters() if is_added(name) and one.requires_grad}

    def completeness_gap(rules):
        score = model(pixel_values).logits[0, 3]
        with rules(score):
            gradients = torch.autograd.grad(score, [pixel_values, *added.values()], allow_unused=True)
        pairs = zip([pixel_values, *added.values()], gradients, strict=True)
        total = sum((value * gradient).sum() for value, gradient in pairs if gradient is not None)
        total = total + getattr(model, "logit_bias", 0)  # SigLIP's, which is frozen
        return (total - score).item()

    assert abs(completeness_gap(libra_rules)) < 1e-10
    assert abs(completeness_gap(lambda score: contextlib.nullcontext())) > 1e-3


def is_added(name):
    """Whether a parameter is added to what flows through the model; the others multiply it."""
    return name.endswith("bias") or any(part in name for part in ("_token", "position_embedding", "class_embedding"))


@pytest.mark.parametrize("attention", ["eager", "lean"])
def test_the_rules_end_with_the_map(attention):
    model = tiny_model("vit", num_hidden_layers=3)
    model.set_attn_implementation(attention)
    wanted = torch.autograd.grad(model(images()).logits.square().sum(), list(model.parameters()))
    explanation = explain(model, images(), method="libra")
    found = torch.autograd.grad(explanation.logits.square().sum(), list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_loss_moves_the_weights_alike_under_eager_and_lean_attention():
    gradients, losses = {}, {}
    masks, labels = (images(seed=1)[:, :1] > 0).float(), torch.tensor([4, 0, 2])
    for attention in ("eager", "lean"):
        model = tiny_model("vit", num_hidden_layers=3).train()
        model.set_attn_implementation(attention)
        out = RobustViTLoss(method="libra")(model, images(), masks, labels)
        out.loss.backward()
        gradients[attention], losses[attention] = [weight.grad for weight in model.parameters()], out.loss.detach()
        torch.testing.assert_close(out.relevance, explain(model, images(), labels, "libra").relevance.detach())
    torch.testing.assert_close(losses["lean"], losses["eager"])
    for found, wanted in zip(gradients["lean"], gradients["eager"], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    plain = RobustViTLoss()(model, images(), masks, labels)
    assert plain.loss != losses["eager"]


def test_under_second_order_the_factors_are_differentiated_too(monkeypatch):
    # Eager attention rounds to float32, which finite differences would see.
    monkeypatch.setattr(functional, "softmax", lambda scores, dim, dtype=None: scores.softmax(dim))
    model, target = tiny_model("vit").double(), torch.tensor([1, 2, 0])

    def mass():
        return explain(model, images().double(), target, "libra", second_order=True).patch_relevance.square().sum()

    weights = [model.vit.layers[0].mlp.fc1.weight, model.vit.layers[1].layernorm_before.weight]
    weights.append(model.vit.embeddings.cls_token)
    for weight, gradient in zip(weights, torch.autograd.grad(mass(), weights), strict=True):
        step = 1e-5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            weight += step
            above = mass()
            weight -= 2 * step
            below = mass()
            weight += step
        assert (above - below).item() / 2 == pytest.approx((gradient * step).sum().item(), rel=1e-4)


@pytest.mark.parametrize("attention", ["eager", "lean"])
def test_frozen_layers_no_grad_and_bfloat16(attention):
    model = tiny_model("vit", num_hidden_layers=3)
    model.set_attn_implementation(attention)
    wanted = explain(model, images(), method="libra").relevance.detach()
    with torch.no_grad():
        torch.testing.assert_close(explain(model, images(), method="libra").relevance, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        low = explain(model, images(), method="libra").relevance
    assert low.dtype == torch.float32 and (low - wanted).abs().mean() < 0.02
    for weight in [*model.vit.embeddings.parameters(), *model.vit.layers[0].parameters()]:
        weight.requires_grad_(False)
    torch.testing.assert_close(explain(model, images(), method="libra").relevance, wanted)


def test_the_length_in_a_cosine_is_held():
    model = tiny_model("vit").double()
    embedding = model.vit(images(1).double()).last_hidden_state[0, 0]
    score = functional.normalize(embedding, dim=0) @ torch.linspace(-1, 1, 32).double()
    with libra_rules(score):
        (gradient,) = torch.autograd.grad(score, embedding)
    assert (gradient @ embedding).item() == pytest.approx(score.item(), rel=1e-10)


def test_checkpointed_activations_and_unknown_attention_are_refused():
    model = tiny_model("vit").train()
    rerun_layers(model, use_reentrant=False)
    with pytest.raises(UserError, match="libra needs the activations that gradient checkpointing throws away"):
        explain(model, images(), method="libra")
    model = tiny_model("vit")
    with pytest.raises(UserError, match="libra finds no attention or no LayerNorm"):
        with libra_rules(model.vit.layernorm(images()).sum()):
            pass


def test_rules_that_no_loss_can_train_with_are_refused():
    with pytest.raises(UserError, match="method is rollout, which is for evaluation only: train with gae or libra"):
        RobustViTLoss(method="rollout")
    with pytest.raises(UserError, match="there is no 'libre'. Did you mean libra"):
        RobustViTLoss(method="libre")


def test_on_the_embedded_model_it_differs_from_gae():
    model, _ = load_classifier("cutouts-vit")
    size = model.config.image_size
    found, other = (explain(model, images(2, (size, size)), method=method).relevance for method in ("libra", "gae"))
    assert not torch.allclose(found, other, atol=0.05)
