"""timm checkpoints, held against a plain forward pass written from timm's names."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_timm import PREPROCESSING, save_timm, timm_tensors
from torch.nn import functional as F

from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import NAMES
from hf_robustvit.models.loading import load_classifier


def timm_logits(tensors: dict[str, torch.Tensor], pixel_values: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The forward pass of timm's VisionTransformer in evaluation, from its weights alone."""

    def linear(name, x):
        return F.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps=1e-6)

    kernel = tensors["patch_embed.proj.weight"]
    patches = F.conv2d(pixel_values, kernel, tensors["patch_embed.proj.bias"], stride=kernel.shape[-1])
    prefix = [
        tensors[name].expand(len(pixel_values), -1, -1) for name in ("cls_token", "dist_token") if name in tensors
    ]
    x = torch.cat([*prefix, patches.flatten(2).mT], dim=1) + tensors["pos_embed"]
    batch, tokens, width = x.shape
    for block in (f"blocks.{layer}" for layer in range(sum(name.endswith("attn.proj.bias") for name in tensors))):
        qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x))
        q, k, v = qkv.reshape(batch, tokens, 3, num_heads, width // num_heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT * (width // num_heads) ** -0.5).softmax(dim=-1)  # (batch, heads, tokens, tokens)
        x = x + linear(f"{block}.attn.proj", (attention @ v).transpose(1, 2).reshape(batch, tokens, width))
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))))
    if "fc_norm.weight" in tensors:
        return linear("head", norm("fc_norm", x[:, 1:].mean(dim=1)))
    x = norm("norm", x)
    if "dist_token" in tensors:
        return (linear("head", x[:, 0]) + linear("head_dist", x[:, 1])) / 2
    return linear("head", x[:, 0])


@pytest.mark.parametrize(
    ("architecture", "sizes", "num_heads", "config"),
    [
        ("vit_tiny_patch8_32", {}, 2, {}),
        ("vit_base_patch16_32", {"patch": 16}, 2, {}),
        ("vit_huge_patch8_32", {"width": 160}, 2, {}),
        ("vit_giant_patch8_32", {"width": 176}, 2, {}),
        ("vit_gigantic_patch8_32", {"width": 208}, 2, {}),
        ("test_vit", {"width": 64, "layers": 3}, 2, {}),
        ("vit_small_patch8_32", {}, 8, {"model_args": {"num_heads": 8, "drop_path_rate": 0.1}}),
        ("deit_small_patch8_32", {}, 2, {}),
        ("deit_small_distilled_patch8_32", {"distilled": True}, 2, {}),
        ("vit_small_patch8_32", {"pool": "avg"}, 2, {"global_pool": "avg"}),
        ("vit_small_patch8_32", {"pool": "avg"}, 2, {"model_args": {"global_pool": "avg", "fc_norm": True}}),
    ],
)
def test_logits_are_those_of_timm(tmp_path, architecture, sizes, num_heads, config):
    tensors = timm_tensors(**sizes)
    model, _ = load_classifier(save_timm(tmp_path / "timm", tensors, architecture, **config))
    pixel_values = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(pixel_values).logits
    expected = timm_logits(tensors, pixel_values, num_heads)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    # Weights with which the number of heads, which no tensor shows, makes a difference.
    assert (timm_logits(tensors, pixel_values, num_heads // 2) - expected).abs().max() > 1e-3


def test_type_and_names_of_the_model_that_comes_out(tmp_path):
    vit, _ = load_classifier(save_timm(tmp_path / "vit", timm_tensors(), label_names=list("abcde")))
    assert type(vit).__name__ == "ViTForImageClassification" and not vit.training
    assert vit.config.id2label == dict(enumerate("abcde")) and vit.config.label2id["c"] == 2
    deit, _ = load_classifier(
        save_timm(tmp_path / "deit", timm_tensors(distilled=True), "deit_tiny_distilled_patch8_32")
    )
    assert type(deit).__name__ == "DeiTForImageClassificationWithTeacher"
    assert deit.config.id2label[4] == "LABEL_4"
    thousand, _ = load_classifier(save_timm(tmp_path / "imagenet", timm_tensors(classes=1000), num_classes=1000))
    assert tuple(thousand.config.id2label.values()) == tuple(NAMES)


def test_a_converted_model_is_saved_and_loaded_as_any_other(tmp_path):
    model, image_processor = load_classifier(save_timm(tmp_path / "timm", timm_tensors()))
    model.save_pretrained(tmp_path / "saved")
    image_processor.save_pretrained(tmp_path / "saved")
    again, _ = load_classifier(tmp_path / "saved")
    pixel_values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(again(pixel_values).logits, model(pixel_values).logits, atol=0, rtol=0)


def test_half_precision_files_are_loaded_as_float32_unless_told(tmp_path):
    half = {name: tensor.half() for name, tensor in timm_tensors().items()}
    folder = save_timm(tmp_path / "timm", half)
    assert load_classifier(folder)[0].dtype == torch.float32
    assert load_classifier(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_model_without_head_needs_labels(tmp_path, caplog):
    tensors = {name: tensor for name, tensor in timm_tensors().items() if not name.startswith("head")}
    folder = save_timm(tmp_path / "timm", tensors, num_classes=0)
    with pytest.raises(UserError, match="has no classification head"):
        load_classifier(folder)
    model, _ = load_classifier(folder, id2label={0: "ant", 1: "bee", 2: "cow"})
    assert "has no head: it gets a new one for 3 classes" in caplog.text
    assert model.classifier.weight.shape == (3, 128)


def preprocessed_by_hand(image, size, resample, mean, std, crop):
    """timm's evaluation transform with PIL: shorter edge to `size`, centre crop, normalisation."""
    image = image.convert("RGB")
    width, height = image.size
    scaled = (size, size * height // width) if width <= height else (size * width // height, size)
    image = image.resize(scaled, resample)
    left, top = round((scaled[0] - crop) / 2), round((scaled[1] - crop) / 2)
    array = np.asarray(image.crop((left, top, left + crop, top + crop)), dtype=np.float64) / 255
    return ((array - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("crop_pct", "size", "interpolation", "resample", "mode"),
    [
        (0.889, 35, "bicubic", Image.Resampling.BICUBIC, "RGB"),  # floor(35.99)
        (0.875, 36, "bilinear", Image.Resampling.BILINEAR, "RGB"),
        (1.0, 32, "bicubic", Image.Resampling.BICUBIC, "L"),
    ],
)
def test_preprocessing_is_the_one_of_the_config(tmp_path, crop_pct, size, interpolation, resample, mode):
    given = {"crop_pct": crop_pct, "interpolation": interpolation, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.5]}
    folder = save_timm(tmp_path / "timm", timm_tensors(), preprocessing=given)
    _, image_processor = load_classifier(folder)
    rng = np.random.default_rng(0)
    for shape in ((72, 96, 3), (96, 72, 3), (40, 40, 3)):
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).convert(mode)
        found = image_processor(image, return_tensors="pt")["pixel_values"][0]
        expected = preprocessed_by_hand(image, size, resample, given["mean"], given["std"], crop=32)
        shifts = [(0, 0)] if (size - 32) % 2 == 0 else [(0, 0), (1, 0), (0, 1), (1, 1)]
        errors = [np.abs(found.numpy()[:, y:, x:] - expected[:, : 32 - y, : 32 - x]).max() for y, x in shifts]
        assert min(errors) < 1e-5  # an odd number of pixels cropped away: up to one pixel further, see the docstring


def test_preprocessing_of_the_papers_timm_models(tmp_path):
    """224 pixels at a crop of 0.9 are 248 pixels on the shorter edge."""
    preprocessing = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    tensors = timm_tensors(patch=16)
    tensors["pos_embed"] = torch.zeros(1, 1 + 14**2, 128)
    _, image_processor = load_classifier(
        save_timm(tmp_path / "timm", tensors, "vit_tiny_patch16_224", preprocessing=preprocessing)
    )
    assert dict(image_processor.size) == {"shortest_edge": 248}
    assert dict(image_processor.crop_size) == {"height": 224, "width": 224}
    assert image_processor.resample == Image.Resampling.BICUBIC


def test_the_flat_config_of_timms_first_hub_format(tmp_path):
    tensors = timm_tensors()
    folder = save_timm(tmp_path / "timm", tensors)
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch8_32"} | PREPROCESSING))
    model, image_processor = load_classifier(folder)
    assert model.config.num_labels == 5 and dict(image_processor.size) == {"shortest_edge": 35}


@pytest.mark.parametrize(
    "unknown",
    [
        "blocks.0.ls1.gamma",
        "reg_token",
        "fc_norm.weight",
        "norm_pre.weight",
        "blocks.1.attn.q_norm.weight",
        "pre_logits.fc.weight",
        "head_dist.weight",
    ],
)
def test_tensors_without_counterpart_are_named(tmp_path, unknown):
    folder = save_timm(tmp_path / "timm", timm_tensors() | {unknown: torch.ones(128)})
    with pytest.raises(UserError, match=f"weights hold {unknown}, which transformers' model does not have"):
        load_classifier(folder)


def test_at_most_five_of_many_unknown_tensors_are_named(tmp_path):
    gammas = {f"blocks.{layer}.ls{part}.gamma": torch.ones(128) for layer in range(4) for part in (1, 2)}
    folder = save_timm(tmp_path / "timm", timm_tensors(layers=4) | gammas)
    with pytest.raises(UserError, match=r"blocks\.0\.ls1\.gamma, .* and 3 more"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "swin_tiny_patch4_window7_224"}, "is timm's swin_tiny_patch4_window7_224, and only"),
        ({"architecture": "deit3_small_patch16_224"}, "is timm's deit3_small_patch16_224"),
        ({"architecture": "vit_base_patch16_clip_224"}, "is timm's vit_base_patch16_clip_224"),
        ({"architecture": "vit_small_patch14_reg4_dinov2"}, "is timm's vit_small_patch14_reg4_dinov2"),
        ({"architecture": "vit_small_r26_s32_224"}, "is timm's vit_small_r26_s32_224"),
        ({"global_pool": "avg"}, "its weights hold norm.bias, norm.weight"),  # pooled after the norm: no fc_norm
        ({"model_args": {"global_pool": "map"}}, "pools its tokens by timm's global_pool 'map'"),
        ({"model_args": {"class_token": False}}, "has no CLS token"),
        ({"model_args": {"act_layer": "relu", "init_values": 1e-5}}, "no counterpart: act_layer, init_values"),
        ({"model_args": {"num_heads": 7}}, "model_args.num_heads"),
        ({"architecture": "vit_huge_patch8_32"}, "128 channels, which heads of 80 channels do not divide"),
        ({"pretrained_cfg": {"mean": [0.5] * 3}}, "lacks crop_pct, input_size, interpolation, std"),
        ({"pretrained_cfg": PREPROCESSING | {"interpolation": "random"}}, "asks for random resizing"),
        ({"pretrained_cfg": PREPROCESSING | {"crop_mode": "squash"}}, "crop mode 'squash'"),
        ({"pretrained_cfg": PREPROCESSING | {"input_size": [3, 48, 48]}}, "17 position embeddings, which do not fit"),
    ],
)
def test_what_the_config_asks_for_and_cannot_have(tmp_path, change, message):
    folder = save_timm(tmp_path / "timm", timm_tensors(), **change)
    with pytest.raises(UserError, match=message) as caught:
        load_classifier(folder)
    assert str(caught.value).startswith("--model: ") and str(folder) in str(caught.value)


def test_incomplete_and_broken_weights(tmp_path):
    tensors = timm_tensors()
    folder = save_timm(tmp_path / "lacking", {name: t for name, t in tensors.items() if name != "blocks.1.norm2.bias"})
    with pytest.raises(UserError, match=r"missing: vit\.layers\.1\.layernorm_after\.bias"):
        load_classifier(folder)
    folder = save_timm(tmp_path / "no_patches", {n: t for n, t in tensors.items() if n != "patch_embed.proj.weight"})
    with pytest.raises(UserError, match=r"is not a ViT of timm: its weights do not hold 'patch_embed\.proj\.weight'"):
        load_classifier(folder)
    folder = save_timm(tmp_path / "misfit", tensors | {"blocks.0.mlp.fc2.bias": torch.zeros(7)})
    with pytest.raises(
        UserError, match=r"of another shape: vit\.layers\.0\.mlp\.fc2\.bias \(7,\) instead of \(128,\)"
    ):
        load_classifier(folder)
    folder = save_timm(tmp_path / "broken", tensors)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="broken' cannot be read"):
        load_classifier(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors, the only format of timm that is converted"):
        load_classifier(folder)
