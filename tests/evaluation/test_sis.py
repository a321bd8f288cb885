"""Sufficient input subsets of models whose every pixel's part in the score is known."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import tiny_model

from hf_robustvit.evaluation.sis import sufficient_input_subset


class Linear(torch.nn.Module):
    """Two classes; the second's logit is the sum of the first channel times the weights."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, pixel_values):
        logit = (pixel_values[:, 0] * self.weights).sum(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(logit), logit], dim=1))


def test_the_smallest_subset_of_a_linear_model():
    weights = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    subset = sufficient_input_subset(Linear(weights), torch.ones(3, 6, 7), 1, 0.9, share_per_step=1e-6)
    strongest = weights.flatten().sort(descending=True).values
    probabilities = strongest.cumsum(0).sigmoid()
    fewest = int((probabilities >= 0.9).nonzero()[0]) + 1
    assert subset.mask.dtype == torch.bool and subset.mask.shape == (6, 7)
    assert int(subset.mask.sum()) == fewest and weights[subset.mask].min() == strongest[fewest - 1]
    assert subset.confidence == pytest.approx(float(probabilities[fewest - 1]))


def test_the_other_class_of_the_same_image_has_one_too():
    weights = torch.randn(6, 7, generator=torch.Generator().manual_seed(1)) + 0.3
    model, image = Linear(weights), torch.ones(3, 6, 7)
    assert model(image[None]).logits.softmax(dim=1)[0, 0] < 0.1, "the image itself is of class 1"
    subset = sufficient_input_subset(model, image, 0)
    assert subset.confidence >= 0.9 and (weights[subset.mask] < 0).all()


def test_what_cannot_be_reached_is_said():
    weights = torch.full((4, 4), 0.01)
    subset = sufficient_input_subset(Linear(weights), torch.ones(3, 4, 4), 1)
    assert subset.mask.all()
    assert subset.confidence == pytest.approx(float(torch.tensor(0.16).sigmoid())), "all pixels are the surest"
    against = sufficient_input_subset(Linear(-weights), torch.ones(3, 4, 4), 1)
    assert int(against.mask.sum()) == 1 and against.confidence == pytest.approx(float(torch.tensor(-0.01).sigmoid()))


def test_the_confidence_is_the_models_on_these_pixels_and_nothing_else_changes():
    model, image = tiny_model("vit"), torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        subset = sufficient_input_subset(model, image.clone(), target=3, threshold=0.6)
    probabilities = model(image[None] * subset.mask).logits.softmax(dim=1)[0].detach()
    assert subset.confidence == pytest.approx(float(probabilities[3]), abs=1e-5)
    whole = float(model(image[None]).logits.softmax(dim=1)[0, 3].detach())
    assert subset.confidence > whole
    assert all(weight.grad is None for weight in model.parameters())
