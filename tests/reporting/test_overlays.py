"""The picture of what models look at."""

import numpy as np
import torch
from PIL import Image
from tiny_models import tiny_model

from hf_robustvit.relevance import explain
from hf_robustvit.reporting.overlays import denormalize, explain_batch, heat_overlay, overlay_grid


def test_explain_batch_tells_the_predicted_class_and_keeps_the_models_mode():
    model = tiny_model("vit").train()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = explain_batch(model, images)
    assert model.training
    wanted = explain(model.eval(), images)
    assert found.predictions == [model.config.id2label[index] for index in wanted.target.tolist()]
    np.testing.assert_allclose(found.maps, wanted.relevance[:, 0].detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(found.confidences, wanted.logits.softmax(-1).amax(-1).tolist(), rtol=1e-5)


def test_denormalize_undoes_the_normalisation():
    colours = torch.rand(2, 3, 4, 5)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.5]).view(3, 1, 1)
    np.testing.assert_allclose(denormalize((colours - mean) / std, mean, std), colours.permute(0, 2, 3, 1), atol=1e-6)


def test_heat_is_brighter_where_relevance_is_higher():
    relevance = np.array([[0.0, 0.5, 1.0]])
    brightness = heat_overlay(np.full((1, 3, 3), 0.5), relevance).sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2] <= 3


def test_the_grid_is_a_picture_even_with_odd_names(tmp_path):
    images, zero = torch.rand(2, 3, 32, 32), torch.zeros(3, 1, 1)
    explained = {"a $very$ odd <title>": explain_batch(tiny_model("vit"), images)}
    path = tmp_path / "new" / "grid.png"
    overlay_grid(path, denormalize(images, zero, zero + 1), ["$x_1$", "<b>"], explained, np.zeros((2, 32, 32)))
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.height > 300
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100
