"""Every loss against the authors' released code: five AdamW steps, their gradients, and the second order."""

import golden_numbers
import pytest
import torch

from hf_robustvit.losses import GradMaskLoss, RobustViTLoss, RRRLoss


BASELINE_WEIGHTS = {"lambda_background": 0.8, "lambda_classification": 0.2}
RELEASED = {
    "main": RobustViTLoss(),
    "main_t065": RobustViTLoss(temperature=0.65),
    "gt_ce": RobustViTLoss(classification_target="label"),
    "rrr": RRRLoss(**BASELINE_WEIGHTS, second_order=False),
    "gradmask": GradMaskLoss(**BASELINE_WEIGHTS, second_order=False),
}
SECOND_ORDER = {
    "second_order_float64": RobustViTLoss(second_order=True),
    "rrr_create_graph_float64": RRRLoss(**BASELINE_WEIGHTS),
    "gradmask_create_graph_float64": GradMaskLoss(**BASELINE_WEIGHTS),
}


def has_gradient(name: str) -> bool:
    """Softmax does not see a key bias, so its gradient is rounding error and nothing to compare."""
    return not name.endswith("k_proj.bias")


def mask_term(out) -> torch.Tensor:
    return out.terms.get("relevance", out.terms["background"])


@pytest.mark.parametrize("case", RELEASED)
def test_five_steps_equal_the_released_code(case):
    loss, expected = RELEASED[case], golden_numbers.expected()[case]
    model = golden_numbers.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    for step in range(5):
        out = loss(model, *golden_numbers.batch())
        optimizer.zero_grad()
        out.loss.backward()
        for term, key in (
            (out.loss, "tot_loss"),
            (mask_term(out), "segmentation_loss"),
            (out.terms["classification"], "classification_loss"),
        ):
            assert term.item() == pytest.approx(expected[key][step], abs=2e-6, rel=2e-5 if case == "rrr" else 0), (
                step,
                key,
            )
        if step == 0:
            norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
            stored = {
                name: torch.from_numpy(golden_numbers.arrays()[f"{case}.grad.{name}"])
                for name in norms
                if f"{case}.grad.{name}" in golden_numbers.arrays()
            }
            gradients = {name: model.get_parameter(name).grad.clone() for name in stored}
        optimizer.step()
        if step == 0 and case == "main":
            for name in ("vit.layers.0.attention.q_proj.weight", "classifier.weight"):
                after = torch.from_numpy(golden_numbers.arrays()[f"main.after1.{name}"])
                assert golden_numbers.relative_error(model.get_parameter(name).detach(), after) < 2e-6
    assert len(stored) == (11 if case == "main" else 2)
    for name, wanted in stored.items():
        assert golden_numbers.relative_error(gradients[name], wanted) < 2e-5, name
    for name, wanted in expected["grad_norm"].items():
        if has_gradient(name):
            assert norms[name] == pytest.approx(wanted, rel=2e-5), name


def test_the_background_and_foreground_terms():
    out = RobustViTLoss()(golden_numbers.model(), *golden_numbers.batch())
    assert out.terms["background"].item() == pytest.approx(golden_numbers.expected()["background_loss"], abs=2e-6)
    assert out.terms["foreground"].item() == pytest.approx(golden_numbers.expected()["foreground_loss"], abs=2e-6)


@pytest.mark.parametrize("case", SECOND_ORDER)
def test_second_order_gradients(case):
    """In double precision, but for the softmax, which transformers always computes in float32."""
    expected = golden_numbers.expected()[case]
    model = golden_numbers.model(torch.float64)
    out = SECOND_ORDER[case](model, *golden_numbers.batch(torch.float64))
    out.loss.backward()
    assert out.loss.item() == pytest.approx(expected["tot_loss"], rel=1e-6)
    for name, wanted in expected["grad_norm"].items():
        if has_gradient(name):
            assert model.get_parameter(name).grad.norm().item() == pytest.approx(wanted, rel=1e-5), name
