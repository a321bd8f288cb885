"""`explain` against the authors' numbers, a plain matrix-product version of Eq. 6-7, and its own promises."""

import re

import golden_numbers
import numpy as np
import pytest
import torch
from plain_read_out import pooling_maps, read_rows
from tiny_models import FAMILIES, SQUARE, tiny_model

from hf_robustvit.errors import UserError
from hf_robustvit.models.patches import patch_layout
from hf_robustvit.relevance import explain, explanation, min_max_normalize, upscale


def images(count=3, size=(32, 32), seed=0):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def full_product(model, pixel_values, target, start_layer=0):
    """Eq. 6-7 to the letter: one gradient call per layer, the whole matrix R, the rows that the head reads."""
    with pooling_maps(model) as pooling:
        outputs = model(pixel_values, output_attentions=True)
    score = sum(outputs.logits[row, index] for row, index in enumerate(target))

    def factor(attention):
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        heads = [(gradient[:, head] * attention[:, head]).relu() for head in range(attention.shape[1])]
        return torch.stack(heads).mean(0)

    num_tokens = outputs.attentions[0].shape[-1]
    relevance = torch.eye(num_tokens).expand(len(pixel_values), -1, -1)
    for attention in outputs.attentions[start_layer:]:
        relevance = relevance + torch.matmul(factor(attention), relevance)
    return read_rows(model, relevance, target, *(factor(attention)[:, 0] for attention in pooling))


def test_maps_equal_the_released_code():
    numbers = {name: torch.from_numpy(value) for name, value in golden_numbers.arrays().items()}
    pixel_values, _, labels = golden_numbers.batch()
    model = golden_numbers.model()

    of_label = explain(model, pixel_values, target=labels)
    assert of_label.relevance.shape == (4, 1, 224, 224)
    assert of_label.patch_relevance.shape == (4, 14, 14)
    torch.testing.assert_close(of_label.logits, numbers["logits"], rtol=0, atol=5e-6)
    torch.testing.assert_close(of_label.relevance, numbers["relevance_gt"], rtol=0, atol=5e-6)
    error = (of_label.patch_relevance.flatten(1) - numbers["raw_gt"]).abs().max()
    assert error < 5e-6 * numbers["raw_gt"].max()

    of_prediction = explain(model, pixel_values)
    assert of_prediction.target.tolist() == golden_numbers.expected()["predicted"]
    torch.testing.assert_close(
        of_prediction.relevance[:, :, ::8, ::8], numbers["relevance_pred_stride8"], rtol=0, atol=5e-6
    )
    error = (of_prediction.patch_relevance.flatten(1) - numbers["raw_pred"]).abs().max()
    assert error < 5e-6 * numbers["raw_pred"].max()


def test_maps_equal_the_released_code_in_float64():
    pixel_values, _, labels = golden_numbers.batch(torch.float64)
    found = explain(golden_numbers.model(torch.float64), pixel_values, target=labels)
    wanted = torch.from_numpy(golden_numbers.arrays()["raw_gt_float64"])
    torch.testing.assert_close(found.patch_relevance.flatten(1), wanted, rtol=0, atol=1e-6 * wanted.max().item())


@pytest.mark.parametrize("attention", ["eager", "lean"])
@pytest.mark.parametrize("start_layer", [0, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_equals_the_full_matrix_product(family, start_layer, attention):
    model = tiny_model(family, num_hidden_layers=3)
    pixel_values, target = images(), torch.tensor([4, 0, 2])
    tokens = full_product(model, pixel_values, target, start_layer)
    patches = tokens[:, patch_layout(model.config).num_prefix_tokens :]
    assert patches.shape == (3, 16)
    model.set_attn_implementation(attention)
    found = explain(model, pixel_values, target=target, start_layer=start_layer)
    torch.testing.assert_close(found.patch_relevance, patches.unflatten(1, (4, 4)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found.relevance[:, 0], min_max_normalize(upscale(found.patch_relevance, (32, 32)))[:, 0], rtol=0, atol=0
    )
    assert patches.std() > 0


@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers"])
@pytest.mark.parametrize("half", ["cls", "patches"])
def test_a_half_that_the_head_does_not_read_adds_nothing(family, half, monkeypatch):
    """A head of two halves, one without weight, is explained as the head that has the other half alone."""
    model, target = tiny_model(family, num_hidden_layers=3), torch.tensor([4, 0, 2])
    with torch.no_grad():
        model.classifier.weight[:, 32:] *= half == "patches"
        model.classifier.weight[:, :32] *= half == "cls"
    found = explain(model, images(), target)
    monkeypatch.setattr(explanation, "head_reads", lambda model: half)
    alone = explain(model, images(), target)
    torch.testing.assert_close(found.relevance, alone.relevance, rtol=0, atol=1e-5)
    assert found.relevance.std() > 0.1


@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers"])
def test_both_halves_of_the_score_are_in_the_map(family):
    """In the last layer alone, each half adds what the score owes to its attentions: A * dA, positive and summed.

    With equal weights of the halves the map is the sum of all rows that the head reads, and so none of it is lost: the
    other tokens' rows have no gradient.
    """
    model, target = tiny_model(family, num_hidden_layers=3), torch.tensor([1])
    with torch.no_grad():
        model.classifier.weight /= model.classifier.weight.unflatten(1, (2, 32)).norm(dim=2).repeat_interleave(32, 1)
    outputs = model(images(1), output_attentions=True)
    (gradient,) = torch.autograd.grad(outputs.logits[0, 1], outputs.attentions[-1])
    owed = (gradient * outputs.attentions[-1])[0].clamp(min=0).mean(dim=0)  # (tokens, tokens)
    prefix = patch_layout(model.config).num_prefix_tokens
    for rows in (slice(0, 1), slice(prefix, None)):
        assert owed[rows].sum() > 0.1 * owed.sum()
    found = explain(model, images(1), target, start_layer=2).patch_relevance.flatten()
    torch.testing.assert_close(17 * found - 1, owed.sum(dim=0)[prefix:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SQUARE])
def test_grids_that_are_not_square(family):
    if family.startswith("dinov2"):  # takes any size at run time
        model = tiny_model(family)
    else:
        model = tiny_model(family, image_size=(32, 48), patch_size=(8, 16))
    rows, columns = (4, 6) if family.startswith("dinov2") else (4, 3)
    pixel_values = images(2, (32, 48))
    found = explain(model, pixel_values)
    assert found.patch_relevance.shape == (2, rows, columns)
    assert found.relevance.shape == (2, 1, 32, 48)
    tokens = full_product(model, pixel_values, found.target)
    torch.testing.assert_close(found.patch_relevance.flatten(1), tokens[:, -rows * columns :], rtol=1e-5, atol=1e-6)


def test_one_forward_pass_and_one_gradient_call(monkeypatch):
    model = tiny_model("vit")
    calls = []
    model.register_forward_hook(lambda *_: calls.append("forward"))
    real_grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append("grad") or real_grad(*a, **k))
    explain(model, images())
    assert calls == ["forward", "grad"]


def test_it_is_differentiable_and_second_order_changes_the_gradient():
    gradients = {}
    for second_order in (False, True):
        model = tiny_model("vit")
        explain(model, images(), second_order=second_order).relevance.square().mean().backward()
        gradients[second_order] = model.vit.layers[0].attention.q_proj.weight.grad
        assert gradients[second_order].abs().sum() > 0
    assert golden_numbers.relative_error(gradients[False], gradients[True]) > 1e-3


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("train", [False, True])
def test_contexts_and_modes_give_the_same_map(context, train):
    model = tiny_model("vit").train(train)
    wanted = explain(tiny_model("vit"), images())
    predicted = wanted.target.tolist()
    with context():
        found = explain(model, images(), target=torch.tensor(predicted))
    torch.testing.assert_close(found.relevance, wanted.relevance)
    assert found.relevance.requires_grad == (context is torch.enable_grad)
    assert model.training == train


@pytest.mark.parametrize("frozen", ["everything", "embeddings and first layer"])
def test_frozen_layers(frozen):
    wanted = explain(tiny_model("vit"), images()).relevance
    model = tiny_model("vit")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = frozen != "everything" and "embeddings" not in name and "layers.0" not in name
    found = explain(model, images())
    torch.testing.assert_close(found.relevance, wanted)
    if frozen != "everything":
        found.relevance.mean().backward()
        assert model.vit.layers[1].attention.q_proj.weight.grad.abs().sum() > 0
        assert model.vit.layers[0].attention.q_proj.weight.grad is None


def test_autocast_keeps_the_map_in_float32():
    wanted = explain(tiny_model("vit"), images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = explain(tiny_model("vit"), images())
    assert found.logits.dtype == torch.bfloat16
    assert found.relevance.dtype == found.patch_relevance.dtype == torch.float32
    torch.testing.assert_close(found.relevance, wanted.relevance, rtol=0, atol=0.1)
    assert found.relevance.amax() == 1 and found.relevance.amin() == 0


def test_a_constant_map_is_zero_with_a_zero_gradient():
    maps = torch.full((2, 1, 4, 4), 0.3)
    maps[1, 0, 0, 0] = 1.3
    maps.requires_grad_()
    normalized = min_max_normalize(maps)
    assert normalized[0].eq(0).all()
    assert normalized[1].max() == 1 and normalized[1].min() == 0
    normalized.square().sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad[0].eq(0).all()


def test_upscale_is_bilinear_between_patch_centres():
    patches = torch.tensor([[[0.0, 1.0]]])
    row = upscale(patches, (1, 8))[0, 0, 0]
    torch.testing.assert_close(row, torch.tensor([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]))


def test_errors_name_what_to_do():
    model = tiny_model("vit")
    with pytest.raises(UserError, match="'gea'.*gae"):
        explain(model, images(), method="gea")
    with pytest.raises(UserError, match="start_layer is 2, but the model's layers are 0 to 1"):
        explain(model, images(), start_layer=2)
    model.set_attn_implementation("sdpa")
    with pytest.raises(UserError, match="eager"):
        explain(model, images())


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (4, [4, 4, 4]),
        (np.int64(4), [4, 4, 4]),
        (torch.tensor(4), [4, 4, 4]),
        ([4], [4, 4, 4]),
        (torch.tensor([[4]]), [4, 4, 4]),
        ([4, 0, 2], [4, 0, 2]),
        (np.array([4, 0, 2], dtype=np.uint8), [4, 0, 2]),
        (torch.tensor([[4], [0], [2]], dtype=torch.int32), [4, 0, 2]),
    ],
)
def test_targets_as_people_write_them(target, wanted):
    model = tiny_model("vit")
    found = explain(model, images(), target=target)
    assert found.target.dtype == torch.int64
    assert found.target.tolist() == wanted
    patches = full_product(model, images(), wanted)[:, 1:]
    torch.testing.assert_close(found.patch_relevance.flatten(1), patches, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", [None, 3])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.inference_mode])
def test_a_single_image_is_a_batch_of_one(target, context):
    model = tiny_model("vit")
    wanted = explain(model, images(1), target=target)
    with context():
        found = explain(model, images(1)[0], target=target)
    for name, value in vars(wanted).items():
        torch.testing.assert_close(getattr(found, name), value)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (
            [1, 2],
            "target has the shape (2,) for a batch of 3: give one class for each image, or a single one for all.",
        ),
        ([], "target has the shape (0,) for a batch of 3"),
        (torch.eye(3, 5), "target has the shape (3, 5) for a batch of 3"),
        ([[0, 1, 2]], "target has the shape (1, 3) for a batch of 3"),
        ([1.0, 2.0, 3.0], "target holds torch.float32 values, but classes are given by their indices: use integers."),
        (True, "target holds torch.bool values"),
        ("ant", "target is 'ant': give the index of a class, or one for each image."),
        ([[1], [1, 2]], "target is [[1], [1, 2]]"),
        (5, "target has the class 5, but the model's classes are 0 to 4."),
        ([0, 4, -1], "target has the class -1, but the model's classes are 0 to 4."),
    ],
)
def test_other_targets_are_refused_before_the_model_runs(target, sentence):
    model = tiny_model("vit")
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(UserError, match=re.escape(sentence)):
        explain(model, images(), target=target)


@pytest.mark.parametrize(
    ("pixel_values", "found"),
    [
        (torch.zeros(32, 32), "shape (32, 32)"),
        (torch.zeros(1, 2, 3, 32, 32), "shape (1, 2, 3, 32, 32)"),
        (torch.zeros(2, 32, 32, 3), "shape (2, 32, 32, 3)"),
        (torch.zeros(0, 3, 32, 32), "shape (0, 3, 32, 32)"),
        (np.zeros((1, 3, 32, 32)), "type ndarray"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(pixel_values, found):
    wanted = "give a tensor of the shape (images, 3, height, width), or (3, height, width) for a single image."
    with pytest.raises(UserError, match=re.escape(f"pixel_values have the {found}: {wanted}")):
        explain(tiny_model("vit"), pixel_values)
