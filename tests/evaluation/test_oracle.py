"""The oracle against attention masks by hand, and on a model planted to read the background only."""

import datasets
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from planted_benchmarks import dataset_of, vit
from tiny_models import FAMILIES, tiny_model
from transformers import ViTImageProcessorPil

from hf_robustvit.evaluation.benchmark import evaluate_benchmark
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.label_spaces import match_classes
from hf_robustvit.evaluation.loop import LoopOptions
from hf_robustvit.evaluation.oracle import ForegroundImages, attend_to_foreground, foreground_patches
from hf_robustvit.evaluation.run import BenchmarkData
from hf_robustvit.models.families import head_reads
from hf_robustvit.models.patches import patch_layout


def plain_vit_logits(model, pixels, allowed):
    """A ViT layer by layer, with the CLS token's attention to forbidden patches cut out by hand."""
    heads, config = model.config.num_attention_heads, model.config
    tokens = model.vit.embeddings(pixels)
    for layer in model.vit.layers:
        normed = layer.layernorm_before(tokens)
        attention = layer.attention
        query, key, value = (
            projection(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = (query @ key.transpose(2, 3) / (config.hidden_size // heads) ** 0.5).exp()
        for image, patches in enumerate(allowed.flatten(1)):
            for patch, is_allowed in enumerate(patches):
                if patches.any() and not is_allowed:
                    weights[image, :, 0, 1 + patch] = 0
        weights = weights / weights.sum(dim=-1, keepdim=True)
        mixed = attention.o_proj((weights @ value).transpose(1, 2).flatten(2))
        tokens = tokens + mixed
        tokens = tokens + layer.mlp(layer.layernorm_after(tokens))
    return model.classifier(model.vit.layernorm(tokens)[:, 0])


@pytest.mark.parametrize("attention", ["eager", "sdpa", "lean"])
def test_logits_equal_a_plain_reimplementation(attention):
    model = tiny_model("vit")
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    allowed = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.6
    allowed[2] = False  # no patch of an object: the image is left alone
    model.set_attn_implementation(attention)
    with torch.no_grad():
        with attend_to_foreground(model, allowed):
            masked = model(pixel_values=pixels).logits
        torch.testing.assert_close(masked, plain_vit_logits(model, pixels, allowed), rtol=1e-4, atol=1e-4)
        after = model(pixel_values=pixels).logits
    torch.testing.assert_close(masked[2], after[2], rtol=1e-4, atol=1e-4)
    assert (masked[[0, 1, 3]] - after[[0, 1, 3]]).abs().max() > 0.01


def test_where_an_attention_pools_the_patches_it_alone_is_restricted():
    model = tiny_model("siglip_zero_shot")
    allowed = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.6
    allowed[1] = False  # no patch of an object: the image is left alone
    pooled = []
    model.vision_model.head.attention.register_forward_hook(lambda module, inputs, output: pooled.append(output[1]))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        free = model(pixel_values=pixels, output_attentions=True)
        with attend_to_foreground(model, allowed):
            masked = model(pixel_values=pixels, output_attentions=True)
    assert torch.equal(pooled[1][0, 0] > 0, allowed[0].flatten()) and torch.equal(pooled[1][1], pooled[0][1])
    assert all(torch.equal(*pair) for pair in zip(free.attentions, masked.attentions, strict=True))
    assert not torch.allclose(masked.logits[0], free.logits[0])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "siglip_zero_shot"])
def test_in_every_other_family_what_the_head_reads_attends_to_allowed_tokens_only(family):
    model = tiny_model(family)
    reads_patches_alone = head_reads(model) == "patches"
    allowed = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.6
    with torch.no_grad(), attend_to_foreground(model, allowed):
        attentions = model(pixel_values=torch.randn(2, 3, 32, 32), output_attentions=True).attentions
    prefix = patch_layout(model.config).num_prefix_tokens
    for attention in attentions:
        cls = attention[:, :, 0]  # (images, heads, tokens)
        seen = torch.cat([torch.ones(2, prefix, dtype=torch.bool), allowed.flatten(1)], dim=1)
        assert ((cls > 0) == seen[:, None]).all()
        if reads_patches_alone:
            assert ((attention > 0) == seen[:, None, None]).all()
        else:
            assert (attention[:, :, 1:] > 0).all(), "all other tokens attend to everything"


def test_patches_with_little_foreground_are_background():
    masks = torch.zeros(1, 16, 8)
    masks[0, 0, :2] = 1  # 2 of 64 pixels: 3.1 %
    masks[0, 8, 0] = 1  # 1.6 %
    assert foreground_patches(masks, (8, 8)).tolist() == [[[True], [False]]]
    assert foreground_patches(masks, (8, 8), least_share=0.5).sum() == 0


def test_masks_are_resized_and_cropped_as_the_images_are(tmp_path):
    rng = np.random.default_rng(0)
    values = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).resize((90, 60)))
    Image.fromarray(values).save(tmp_path / "mask.png")
    Image.fromarray(np.stack([values] * 3, axis=-1)).save(tmp_path / "image.png")
    rows = dataset_of([tmp_path / "image.png"], [0], ["c0"])
    rows = rows.add_column("mask", [{"path": str(tmp_path / "mask.png"), "bytes": None}])
    processor = ViTImageProcessorPil(
        size={"shortest_edge": 37}, do_center_crop=True, crop_size={"height": 32, "width": 32}
    )
    item = ForegroundImages(rows, processor, with_masks=True)[0]
    torch.testing.assert_close(item["mask"], item["pixel_values"][0] / 2 + 0.5)


@pytest.fixture
def planted(tmp_path):
    """Two classes told by the background alone: white or black around a grey object in the middle."""
    paths, masks, labels = [], [], [0, 1] * 4
    for number, label in enumerate(labels):
        image = np.full((32, 32, 3), 255 * label, dtype=np.uint8)
        image[8:24, 8:24] = 100 + number
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[8:24, 8:24] = 255
        for kind, picture, files in (("image", image, paths), ("mask", mask, masks)):
            files.append(tmp_path / f"{kind}{number}.png")
            Image.fromarray(picture).save(files[-1])
    rows = dataset_of(paths, labels, ["c0", "c1"])
    return rows.add_column("mask", [{"path": str(mask), "bytes": None} for mask in masks], feature=datasets.Image())


def background_reader():
    """A ViT without MLP whose CLS token averages the brightness of the patches it sees."""
    model, _ = vit(2, num_hidden_layers=1, num_attention_heads=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embeddings, layer = model.vit.embeddings, model.vit.layers[0]
        embeddings.patch_embeddings.projection.weight[0] = 1 / (3 * 64)  # the mean of a patch
        embeddings.patch_embeddings.projection.weight[1] = -1 / (3 * 64)
        for norm in (layer.layernorm_before, model.vit.layernorm):
            norm.weight.fill_(1)
        layer.attention.v_proj.weight.copy_(torch.eye(32))
        layer.attention.o_proj.weight.copy_(torch.eye(32))
        model.classifier.weight[1, 0], model.classifier.weight[0, 1] = 1, 1
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Checkpoint("planted", None, model, processor)


def test_a_model_that_reads_the_background_drops_to_chance(planted, tmp_path, caplog):
    checkpoint = background_reader()
    space = match_classes("toy", ["c0", "c1"], None, checkpoint.model.config)
    data = BenchmarkData("toy", planted, space)
    run = (tmp_path, Accelerator(cpu=True), LoopOptions(batch_size=3))
    without = evaluate_benchmark(checkpoint, data, *run)
    assert without.top1 == 100 and without.top1_oracle is None and without.insertion is None
    with caplog.at_level("INFO"):
        result = evaluate_benchmark(checkpoint, data, *run, oracle=True)  # run again: the oracle is missing
    assert result.top1 == 100 and result.top1_oracle == 50, "without its background every image looks alike"
    low, high = result.oracle_headroom_ci95
    assert low < -50 < high < 0
    assert "top-1 is 50.00 instead of 100.00, -50.00 [" in caplog.text and "could gain" not in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        assert evaluate_benchmark(checkpoint, data, *run) == result
    assert "toy is finished" in caplog.text


def test_other_backgrounds_mislead_the_same_model(planted, tmp_path):
    checkpoint = background_reader()
    space = match_classes("toy", ["c0", "c1"], None, checkpoint.model.config)
    data = BenchmarkData("toy", planted, space, tests_masks=True)
    result = evaluate_benchmark(checkpoint, data, tmp_path, Accelerator(cpu=True), LoopOptions(batch_size=3))
    assert result.top1_swapped_background == 0, "every background is of the other class"
    assert result.top1_grey_background == 50, "all images look alike"
    assert result.top1_oracle is None and 0 < result.relevance_in_mask < 100
