"""The losses against closed forms, and what they promise beyond the golden numbers."""

import pytest
import torch
import torch.nn.functional as F
from golden_numbers import relative_error
from tiny_models import tiny_model

from hf_robustvit.errors import UserError
from hf_robustvit.losses import FinetuneLoss, GradMaskLoss, RobustViTLoss, RRRLoss
from hf_robustvit.losses.output import background_of
from hf_robustvit.relevance import explain


LOSSES = {
    "robustvit": RobustViTLoss(),
    "robustvit second order": RobustViTLoss(second_order=True),
    "gradmask": GradMaskLoss(0.8, 0.2),
    "gradmask norm": GradMaskLoss(0.8, 0.2, penalty="norm"),
    "rrr": RRRLoss(0.8, 0.2),
    "finetune": FinetuneLoss(),
}


def batch(count=6):
    generator = torch.Generator().manual_seed(1)
    pixel_values = torch.randn(count, 3, 32, 32, generator=generator)
    masks = (torch.rand(count, 1, 32, 32, generator=generator) > 0.6).float()
    return pixel_values, masks, torch.randint(5, (count,), generator=generator)


def gradients(model) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_robustvit_terms_follow_the_equations():
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    out = RobustViTLoss(temperature=0.5)(model, pixel_values, masks, labels)
    map_of_label = explain(model, pixel_values, target=labels)
    background = F.mse_loss(map_of_label.relevance * (1 - masks), torch.zeros_like(masks))
    foreground = F.mse_loss(map_of_label.relevance * masks, masks)
    confidence = F.cross_entropy(map_of_label.logits / 0.5, map_of_label.logits.argmax(-1))
    torch.testing.assert_close(out.terms["background"], background.detach())
    torch.testing.assert_close(out.terms["foreground"], foreground.detach())
    torch.testing.assert_close(out.terms["relevance"], (2 * background + 0.3 * foreground).detach())
    torch.testing.assert_close(out.terms["classification"], confidence.detach())
    torch.testing.assert_close(out.loss, 0.8 * (2 * background + 0.3 * foreground) + 0.2 * confidence)
    torch.testing.assert_close(out.relevance, map_of_label.relevance.detach())
    assert not out.logits.requires_grad


def test_targets_choose_the_class():
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    predicted = explain(model, pixel_values).target
    assert not torch.equal(predicted, labels)
    of_prediction = RobustViTLoss(relevance_target="predicted")(model, pixel_values, masks, labels)
    of_label = RobustViTLoss(classification_target="label")(model, pixel_values, masks, labels)
    renamed = RobustViTLoss()(model, pixel_values, masks, predicted)
    torch.testing.assert_close(of_prediction.loss, renamed.loss)
    cross_entropy = F.cross_entropy(model(pixel_values).logits, labels).detach()
    torch.testing.assert_close(of_label.terms["classification"], cross_entropy)


def test_start_layer_leaves_earlier_layers_out_of_the_map():
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    found = RobustViTLoss(start_layer=1)(model, pixel_values, masks, labels).relevance
    torch.testing.assert_close(found, explain(model, pixel_values, target=labels, start_layer=1).relevance.detach())
    assert not torch.allclose(found, explain(model, pixel_values, target=labels).relevance)


def test_background_of_keeps_soft_edges():
    assert background_of(torch.tensor([0, 0.25, 0.5, 0.75, 1])).tolist() == [1, 0.25, 0.5, 0.75, 0]


@pytest.mark.parametrize("name", ["robustvit", "gradmask", "rrr"])
def test_ignored_pixels_count_in_no_term(name):
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    ignored = torch.zeros_like(masks, dtype=torch.bool)
    ignored[:, :, 8:16] = True
    marked = LOSSES[name](model, pixel_values, masks.masked_fill(ignored, -1), labels)
    as_object, as_background = (
        LOSSES[name](model, pixel_values, masks.masked_fill(ignored, value), labels) for value in (1.0, 0.0)
    )
    torch.testing.assert_close(marked.terms["background"], as_object.terms["background"])
    assert marked.terms["background"] < as_background.terms["background"]
    if name == "robustvit":
        torch.testing.assert_close(marked.terms["foreground"], as_background.terms["foreground"])


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_add_up_to_the_whole(name):
    loss, (pixel_values, masks, labels) = LOSSES[name], batch(6)
    whole, parts = tiny_model("vit"), tiny_model("vit")
    out = loss(whole, pixel_values, masks, labels)
    out.loss.backward()
    total = 0
    for part in (slice(0, 4), slice(4, 6)):
        piece = loss(parts, pixel_values[part], masks[part], labels[part], num_images=torch.tensor(6))
        piece.loss.backward()
        total += piece.loss.detach()
    torch.testing.assert_close(total, out.loss.detach())
    assert relative_error(gradients(parts), gradients(whole)) < 1e-5


@pytest.mark.parametrize("make", [GradMaskLoss, RRRLoss])
def test_the_mask_term_moves_weights_only_in_second_order(make):
    inputs = batch()
    model = tiny_model("vit")
    make(1.0, 0.0)(model, *inputs).loss.backward()
    assert gradients(model).norm() > 1e-3

    released = tiny_model("vit")
    make(1.0, 0.0, second_order=False)(released, *inputs).loss.backward()
    assert gradients(released).abs().max() == 0


def test_rrr_penalty_is_the_sum_of_squares_of_the_masked_input_gradient():
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    leaf = pixel_values.clone().requires_grad_()
    model(leaf).logits.log_softmax(-1).sum().backward()
    wanted = (leaf.grad * (1 - masks)).square().sum()
    torch.testing.assert_close(RRRLoss(1.0, 0.0)(model, pixel_values, masks, labels).loss.detach(), wanted)


@pytest.mark.parametrize("penalty", ["mean_square", "norm"])
def test_gradmask_penalties(penalty):
    model, (pixel_values, masks, labels) = tiny_model("vit"), batch()
    leaf = pixel_values.clone().requires_grad_()
    model(leaf).logits[torch.arange(len(labels)), labels].sum().backward()
    masked = leaf.grad * (1 - masks)
    wanted = masked.square().mean() if penalty == "mean_square" else masked.flatten(1).norm(dim=1).mean()
    found = GradMaskLoss(1.0, 0.0, penalty=penalty)(model, pixel_values, masks, labels)
    torch.testing.assert_close(found.loss.detach(), wanted)


@pytest.mark.parametrize("name", LOSSES)
def test_it_works_without_gradients(name):
    model, inputs = tiny_model("vit"), batch()
    wanted = LOSSES[name](model, *inputs).loss.item()
    with torch.no_grad():
        out = LOSSES[name](model, *inputs)
    assert not out.loss.requires_grad
    assert out.loss.item() == pytest.approx(wanted, rel=1e-6)


def test_a_constant_map_gives_a_finite_loss_and_finite_gradients():
    model = tiny_model("vit")
    with torch.no_grad():
        model.classifier.weight.zero_()  # no score depends on any attention
    out = RobustViTLoss(second_order=True)(model, *batch())
    out.loss.backward()
    assert out.relevance.eq(0).all()
    assert out.loss.isfinite() and gradients(model).isfinite().all()


def test_unknown_choices_are_named():
    with pytest.raises(UserError, match="classification_target.*'labels'.*label"):
        RobustViTLoss(classification_target="labels")
    with pytest.raises(UserError, match="penalty.*'norms'.*norm"):
        GradMaskLoss(1.0, 1.0, penalty="norms")
