"""Key features of every family, from local folders without a head, against the layer's own matrices."""

import numpy as np
import pytest
import torch
from mask_images import photograph, save_backbone
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from tiny_timm import PREPROCESSING, save_timm, timm_tensors
from transformers import AutoModel, ViTImageProcessorPil

from hf_robustvit.errors import UserError
from hf_robustvit.masks.backbone import load_backbone
from hf_robustvit.models.families import MODEL_TYPES
from hf_robustvit.models.loading import load_classifier


@pytest.mark.parametrize("family", [family for family in MODEL_TYPES if family != "metaclip_2"])
@pytest.mark.parametrize("size", [(32, 32), (80, 56)])
def test_keys_of_the_patches_without_prefix_tokens(family, size, tmp_path):
    backbone = load_backbone(str(save_backbone(tmp_path / family, family)))
    image, _ = photograph(size=size)
    features = backbone.key_features([image, image])
    patches = size[0] * size[1] // 64
    assert features.shape == (2, 32, patches)

    # What goes into the last layer, through its first norm and its key projection: the last tokens are the patches.
    model = AutoModel.from_pretrained(tmp_path / family, attn_implementation="eager").eval()
    model = getattr(model, "vision_model", model)
    pixels = torch.from_numpy((np.asarray(image, dtype=np.float32) / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]
    fit = {} if family.startswith("dinov2") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        states = model(pixels, output_hidden_states=True, **fit).hidden_states
        weights = dict(model.named_modules())
        norms = [module for name, module in weights.items() if name.endswith(("layernorm_before", "norm1"))]
        keys = [module for name, module in weights.items() if name.endswith(("attention.key", "k_proj"))]
        wanted = keys[-1](norms[-1](states[-2]))[0]
    prefix = wanted.shape[0] - patches
    assert prefix == {"deit": 2, "dinov2_with_registers": 5, "ijepa": 0, "siglip": 0}.get(family, 1)
    torch.testing.assert_close(features[0], wanted[prefix:].T, rtol=1e-4, atol=1e-5)
    assert not features.is_inference(), "what a BEiT keeps of this pass would spoil its training"


def test_a_classifier_folder_serves_as_well_as_its_headless_model(tmp_path):
    save_backbone(tmp_path / "headless")
    tiny_model("vit").save_pretrained(tmp_path / "classifier")
    ViTImageProcessorPil().save_pretrained(tmp_path / "classifier")
    image, _ = photograph(size=(32, 32))
    first, second = (load_backbone(str(tmp_path / name)).key_features([image]) for name in ("headless", "classifier"))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("distilled", [False, True])
def test_timm_checkpoints_with_and_without_head(tmp_path, distilled, caplog):
    architecture = "deit_tiny_distilled_patch8_32" if distilled else "vit_tiny_patch8_32"
    tensors = timm_tensors(distilled=distilled)
    save_timm(tmp_path / "head", tensors, architecture)
    headless = {key: tensor for key, tensor in tensors.items() if not key.startswith("head")}
    save_timm(tmp_path / "headless", headless, architecture, num_classes=0)
    image, _ = photograph(size=(32, 32))
    first = load_backbone(str(tmp_path / "headless"))
    assert "is a classifier" not in caplog.text
    second = load_backbone(str(tmp_path / "head"))
    assert f"--backbone: '{tmp_path}/head' is a classifier. TokenCut is made for" in caplog.text
    assert second.image_mean == pytest.approx(PREPROCESSING["mean"]) and second.patch_size == 8
    torch.testing.assert_close(first.key_features([image]), second.key_features([image]), rtol=0, atol=0)

    # Its own classifier, which is converted elsewhere, computes the same keys.
    model, _ = load_classifier(tmp_path / "head")
    pixels = (np.asarray(image, dtype=np.float32) / 255 - PREPROCESSING["mean"]) / PREPROCESSING["std"]
    keys = []
    model.base_model.layers[-1].attention.k_proj.register_forward_hook(lambda *call: keys.append(call[2]))
    with torch.no_grad():
        model(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    wanted = keys[0][0, 1 + distilled :].T
    torch.testing.assert_close(second.key_features([image])[0], wanted, rtol=1e-4, atol=1e-5)


def test_timm_checkpoints_that_cannot_be_converted(tmp_path):
    save_timm(tmp_path / "swin", timm_tensors(), "swin_tiny_patch4_window7_224")
    with pytest.raises(
        UserError, match="^--backbone: .*swin' is timm's swin_tiny_patch4_window7_224, and only timm's"
    ):
        load_backbone(str(tmp_path / "swin"))
    save_timm(tmp_path / "vit", timm_tensors()).joinpath("model.safetensors").unlink()
    with pytest.raises(UserError, match="^--backbone: .*vit' holds no model.safetensors"):
        load_backbone(str(tmp_path / "vit"))


def test_a_model_that_is_no_plain_vit_is_refused(tmp_path):
    (tmp_path / "swin").mkdir()
    (tmp_path / "swin" / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(UserError, match="--backbone: there is no support for .*swin' .model type swin.: its attent"):
        load_backbone(str(tmp_path / "swin"))


def test_an_image_tower_that_is_not_loaded_alone_is_refused(tmp_path):
    save_backbone(tmp_path / "metaclip", "metaclip_2")
    with pytest.raises(UserError, match="^--backbone: .* model type metaclip_2, whose image tower transformers does"):
        load_backbone(str(tmp_path / "metaclip"))


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="^--backbone: there is no .*nothing"):
        load_backbone(str(tmp_path / "nothing"))


def test_weights_are_float32_whatever_the_file_holds(tmp_path):
    tiny_model("vit").base_model.half().save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    features = load_backbone(str(tmp_path)).key_features([photograph(size=(32, 32))[0]])
    assert features.dtype == torch.float32


def test_missing_weights_are_refused(tmp_path):
    save_backbone(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = next(name for name in weights if "layernorm_before.weight" in name)
    del weights[key]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights \(first: .*layernorm_before.weight\): save it whole"):
        load_backbone(str(tmp_path))
    save_file(weights | {key: torch.ones(7)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^--backbone: .* config.json \(.*before.weight is \(7,\) instead of \(32,\)"):
        load_backbone(str(tmp_path))
