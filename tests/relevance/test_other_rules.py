"""Attention rollout and occlusion against plain loops, and on a model whose losses are planted."""

from types import SimpleNamespace

import pytest
import torch
from plain_read_out import pooling_maps
from tiny_models import FAMILIES, tiny_model
from torch.nn import functional

from hf_robustvit.errors import UserError
from hf_robustvit.models.families import head_reads
from hf_robustvit.models.patches import patch_layout
from hf_robustvit.relevance import explain
from hf_robustvit.relevance.occlusion import occlusion


def images(count=3, size=(32, 32), seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def plain_rollout(model, pixel_values, start_layer=0):
    """Abnar and Zuidema's product of whole matrices, image by image; the rows that the head reads."""
    reads, prefix = head_reads(model), patch_layout(model.config).num_prefix_tokens
    with pooling_maps(model) as pooling:
        attentions = model(pixel_values, output_attentions=True).attentions[start_layer:]
    rows = []
    for image in range(len(pixel_values)):
        product = torch.eye(attentions[0].shape[-1])
        for attention in attentions:
            product = (0.5 * attention[image].mean(dim=0) + 0.5 * torch.eye(len(product))) @ product
        patches = product[prefix:].mean(dim=0)
        both = {"patches": patches, "cls and patches": (product[0] + patches) / 2}
        if pooling:
            both["attention pooling"] = pooling[0][image].mean(dim=0)[0] @ product
        rows.append(both.get(reads, product[0]))
    return torch.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["eager", "lean"])
def test_rollout_is_the_product_of_all_layers(family, attention):
    model = tiny_model(family, num_hidden_layers=3)
    with torch.no_grad():
        wanted = plain_rollout(model, images())
    torch.testing.assert_close(wanted.sum(dim=1), torch.ones(3))
    model.set_attn_implementation(attention)
    found = explain(model, images(), method="rollout")
    prefix = patch_layout(model.config).num_prefix_tokens
    torch.testing.assert_close(found.patch_relevance.flatten(1), wanted[:, prefix:], rtol=1e-4, atol=1e-6)
    assert (found.relevance.amin(), found.relevance.amax()) == (0, 1)


def test_rollout_counts_from_a_layer_knows_no_class_and_moves_the_weights():
    model = tiny_model("vit", num_hidden_layers=3)
    with torch.no_grad():
        wanted = plain_rollout(model, images(), start_layer=2)
    first, second = (explain(model, images(), target, "rollout", start_layer=2) for target in (0, 1))
    torch.testing.assert_close(first.patch_relevance.flatten(1), wanted[:, 1:], rtol=1e-4, atol=1e-6)
    assert torch.equal(first.relevance, second.relevance)
    first.relevance.mean().backward()
    assert model.vit.layers[2].attention.q_proj.weight.grad.abs().sum() > 0


class Additive(torch.nn.Module):
    """The probability of class 1 is the sum of the weights of the 4 x 4 patches that are there (1 and not 0)."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights  # (rows, columns)

    def forward(self, pixel_values):
        probability = (functional.avg_pool2d(pixel_values[:, 0], 4) * self.weights).sum(dim=(1, 2))
        return SimpleNamespace(logits=torch.stack([1 - probability, probability], dim=1).log())


def test_occlusion_finds_what_each_square_adds():
    weights = torch.tensor([[0.1, 0.1, 0.0, 0.2, 0.05], [0.0, 0.1, 0.0, -0.3, 0.0], [0.2, 0.0, 0.0, 0.0, 0.15]])
    found = occlusion(Additive(weights), torch.ones(2, 3, 12, 20), torch.tensor([1, 0]), (4, 4))
    wanted = torch.tensor([[0.3, 0.3, 0, 0, 0.05], [0.3, 0.3, 0, 0, 0.05], [0.2, 0.2, 0, 0, 0.15]])
    torch.testing.assert_close(found[0], wanted, atol=1e-6, rtol=0)
    # What helps one class of two harms the other.
    torch.testing.assert_close(found[1], torch.tensor([0, 0, 0.1, 0.1, 0]).expand(3, 5) * wanted.new([[1], [1], [0]]))


def test_occlusion_of_a_real_model_equals_a_plain_loop():
    model, pixels = tiny_model("vit"), images()
    found = explain(model, pixels, method="occlusion")
    for image, target in enumerate(found.target.tolist()):
        with torch.no_grad():
            whole = model(pixels[image : image + 1]).logits.softmax(dim=1)[0, target]
            for row, column in ((0, 0), (0, 2), (2, 0), (2, 2)):
                covered = pixels[image : image + 1].clone()
                covered[:, :, 8 * row : 8 * row + 16, 8 * column : 8 * column + 16] = 0
                drop = max(0, float(whole - model(covered).logits.softmax(dim=1)[0, target]))
                assert found.patch_relevance[image, row : row + 2, column : column + 2].flatten().tolist() == (
                    pytest.approx([drop] * 4, abs=1e-6)
                )
    assert not found.relevance.requires_grad and found.logits.requires_grad


def test_other_names_get_a_suggestion():
    with pytest.raises(UserError, match="method: there is no 'roll'. Did you mean rollout"):
        explain(tiny_model("vit"), images(), method="roll")
