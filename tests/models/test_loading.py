"""Loading: every supported family, every refusal, what happens to the head, and where the patches are."""

import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_clip import save_clip
from tiny_models import FAMILIES, tiny_model
from transformers import ViTImageProcessorPil, ViTModel

from hf_robustvit.errors import UserError
from hf_robustvit.models.loading import attentions_of, classifier_config, load_classifier, patch_layout


LABELS = dict(enumerate(("ant", "bee", "cow", "dog", "elk")))


def pixels(batch=2) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model) -> torch.Tensor:
    return model(pixels()).logits


def save(folder, model, **save_options):
    model.save_pretrained(folder, **save_options)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def change_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_weights(folder, changes=None, without=()):
    """Rewrite the weights with other tensors, and without those whose name starts with one of `without`."""
    file = folder / "model.safetensors"
    tensors = load_file(file) | (changes or {})
    save_file({name: t for name, t in tensors.items() if not name.startswith(tuple(without))}, file)


@pytest.fixture
def folder(tmp_path):
    """A ViT of five named classes."""
    return save(tmp_path / "model", tiny_model("vit", id2label=LABELS, label2id={n: i for i, n in LABELS.items()}))


@pytest.mark.parametrize("new_names", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_saved_models_logits(tmp_path, family, new_names):
    saved = tiny_model(family)
    folder = save(tmp_path / "model", saved, save_original_format=not new_names)
    model, image_processor = load_classifier(folder)
    assert type(model) is type(saved) and not model.training and model.dtype == torch.float32
    assert torch.equal(logits_of(model), logits_of(saved))
    assert model.name_or_path == model.config.name_or_path == str(folder)
    assert dict(image_processor.size) == {"height": 32, "width": 32}
    outputs = model(pixels(), output_attentions=True)
    tokens = patch_layout(model.config).num_prefix_tokens + 16
    assert [attention.shape for attention in attentions_of(outputs, model.config)] == [(2, 4, tokens, tokens)] * 2


def test_names_of_transformers_4_load(tmp_path):
    saved = tiny_model("vit")
    folder = save(tmp_path / "model", saved)
    renamed = {}
    for name, tensor in saved.state_dict().items():
        for new, old in (
            (".layers.", ".encoder.layer."),
            (".attention.q_proj.", ".attention.attention.query."),
            (".attention.k_proj.", ".attention.attention.key."),
            (".attention.v_proj.", ".attention.attention.value."),
            (".attention.o_proj.", ".attention.output.dense."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
        ):
            name = name.replace(new, old)
        renamed[name] = tensor
    assert "vit.encoder.layer.1.attention.attention.query.weight" in renamed
    save_file(renamed, folder / "model.safetensors")
    assert torch.equal(logits_of(load_classifier(folder)[0]), logits_of(saved))


def test_half_precision_files_are_loaded_as_float32_unless_told(tmp_path):
    folder = save(tmp_path / "model", tiny_model("vit").half())
    assert load_classifier(folder)[0].dtype == torch.float32
    assert load_classifier(folder, dtype=torch.bfloat16)[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "options", "num_prefix_tokens"),
    [
        ("vit", {}, 1),
        ("vit", {"patch_size": (8, 4)}, 1),
        ("deit", {}, 2),
        ("deit_with_teacher", {}, 2),
        ("vit_msn", {}, 1),
        ("dinov2", {}, 1),
        ("dinov2_with_registers", {"num_register_tokens": 3}, 4),
        ("beit", {}, 1),
        ("ijepa", {}, 0),
        ("clip", {}, 1),
        ("siglip", {}, 0),
    ],
)
def test_patch_layout_counts_the_models_tokens(family, options, num_prefix_tokens):
    model = tiny_model(family, **options)
    layout = patch_layout(model.config)
    rows, columns = layout.grid(32, 32)
    assert layout.num_prefix_tokens == num_prefix_tokens
    assert layout.patch_size == ((8, 4) if options.get("patch_size") else (8, 8))
    tokens = model(pixels(), output_attentions=True).attentions[0].shape[-1]
    assert tokens == num_prefix_tokens + rows * columns


@pytest.mark.parametrize(("height", "width"), [(32, 30), (31, 32), (0, 32)])
def test_images_that_are_no_whole_number_of_patches(height, width):
    with pytest.raises(UserError, match=f"An image of {height}x{width} pixels cannot be cut into patches of 8x8"):
        patch_layout(tiny_model("vit").config).grid(height, width)


def test_a_grid_need_not_be_square():
    assert patch_layout(tiny_model("vit").config).grid(48, 16) == (6, 2)


def test_attentions_that_come_back_empty_are_an_error():
    model = tiny_model("vit")
    model.set_attn_implementation("sdpa")
    outputs = model(pixels(), output_attentions=True)
    assert not outputs.attentions  # what transformers does, and why this check exists
    with pytest.raises(UserError, match=r"returned 0 attention maps for its 2 layers under 'sdpa' attention: .*eager"):
        attentions_of(outputs, model.config)
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match="ask for output_attentions=True"):
        attentions_of(model(pixels()), model.config)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("swin", "its attention stays inside windows"),
        ("hiera", "its attention stays inside windows"),
        ("perceiver", "it attends from tokens that stand for no part of the image"),
        ("siglip2", "it takes patches of any number and a mask of them instead of an image"),
        ("convnext", "it has no self-attention"),
        ("data2vec-vision", "transformers builds its attention in fixed classes"),
        ("dinov3_vit", "transformers has its backbone, but no class of it that classifies images"),
        ("clip_vision_model", "transformers has its backbone, but no class of it that classifies images"),
        ("timm_wrapper", "transformers' wrapper of timm models gives no attentions"),
        ("bert", "it is not known how it reads its class score"),
        (None, "it is not known how it reads its class score"),
    ],
)
def test_refusals_name_the_model_the_reason_and_what_is_supported(tmp_path, model_type, reason):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type} if model_type else {}))
    with pytest.raises(UserError) as caught:
        load_classifier(tmp_path)
    message = str(caught.value)
    assert f"{str(tmp_path)!r} (model type {model_type}): {reason}" in message
    assert "Supported are ViT, DeiT, ViT-MSN, DINOv2, DINOv2 with registers, BEiT, I-JEPA, CLIP" in message
    assert "vit, deit, vit_msn, dinov2, dinov2_with_registers, beit" in message
    assert "timm's plain ViT and DeiT" in message


def test_a_model_made_elsewhere_is_refused_by_its_config():
    config = transformers.SwinConfig()
    with pytest.raises(UserError, match=r"'SwinConfig' \(model type swin\): its attention stays inside windows"):
        patch_layout(config)


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "eagre", "some/kernel"])
def test_attention_functions_without_maps_are_refused(folder, attention):
    with pytest.raises(UserError, match=f"attention: there is no '{attention}'.*eager"):
        load_classifier(folder, attention=attention)


def test_the_same_labels_keep_the_head(folder, caplog):
    model, _ = load_classifier(folder, id2label=LABELS)
    assert torch.equal(model.classifier.weight, load_classifier(folder)[0].classifier.weight)
    assert "new one" not in caplog.text


@pytest.mark.parametrize(
    ("id2label", "found"),
    [
        ({0: "fox", 1: "gnu", 2: "hen"}, "a head for 5 classes: it gets a new one for 3 classes"),
        (dict(enumerate("vwxyz")), "a head for 5 other classes: it gets a new one for 5 classes"),
        ({0: "bee", 1: "ant", 2: "cow", 3: "dog", 4: "elk"}, "a head for 5 other classes"),
    ],
)
def test_other_labels_get_a_new_head_and_a_line_in_the_log(folder, caplog, id2label, found):
    model, _ = load_classifier(folder, id2label=id2label)
    assert f"{folder} has {found}" in caplog.text and "random until trained" in caplog.text
    assert model.config.id2label == id2label and model.config.num_labels == len(id2label)
    assert model.config.label2id == {label: index for index, label in id2label.items()}
    trained = load_classifier(folder)[0]
    assert model.classifier.weight.shape == (len(id2label), 32) and not model.classifier.bias.any()
    rows = min(len(id2label), 5)
    assert not torch.equal(model.classifier.weight[:rows], trained.classifier.weight[:rows])
    assert torch.equal(model.vit.layers[1].mlp.fc1.weight, trained.vit.layers[1].mlp.fc1.weight)


def test_both_heads_of_a_distilled_deit_are_new(tmp_path):
    folder = save(tmp_path / "model", tiny_model("deit_with_teacher"))
    model, _ = load_classifier(folder, id2label=LABELS)
    for head in (model.cls_classifier, model.distillation_classifier):
        assert head.weight.std() > 0 and not head.bias.any()


def test_a_backbone_has_no_head(tmp_path, caplog):
    backbone = ViTModel(tiny_model("vit").config)  # with a pooler, and names without "vit."
    folder = save(tmp_path / "model", backbone)
    with pytest.raises(
        UserError, match="has no classification head: choose a checkpoint that was trained to classify"
    ):
        load_classifier(folder)
    model, _ = load_classifier(folder, id2label={0: "ant", 1: "bee"})
    assert "has no head: it gets a new one for 2 classes" in caplog.text
    assert model.classifier.weight.shape == (2, 32) and model.classifier.weight.std() > 0
    assert torch.equal(model.vit.layers[0].mlp.fc1.weight, backbone.layers[0].mlp.fc1.weight)


def test_of_weights_that_are_left_over_or_new_our_sentence_alone_is_said(folder, capfd, caplog):
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    try:
        change_weights(folder, {"vit.pooler.dense.bias": torch.zeros(32)})
        load_classifier(folder, id2label={0: "ant", 1: "bee"})
        assert transformers.logging.get_verbosity() == transformers.logging.WARNING
    finally:
        transformers.logging.disable_propagation()
        transformers.logging.set_verbosity(verbosity)
    sentence = f"{folder} has a head for 5 classes: it gets a new one for 2 classes, random until trained."
    assert caplog.messages == [sentence] and "REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "without", "problem"),
    [
        ({}, ["vit.layernorm.bias"], "missing: vit.layernorm.bias"),
        ({"vit.layernorm.bias": torch.zeros(7)}, [], "of another shape: vit.layernorm.bias (7,) instead of (32,)"),
        ({"vit.layer_scale": torch.zeros(7)}, [], "left over: vit.layer_scale"),
        (
            {"classifier.weight": torch.zeros(7, 32)},
            [],
            "of another shape: classifier.weight (7, 32) instead of (5, 32)",
        ),
    ],
)
@pytest.mark.parametrize("id2label", [None, LABELS])
def test_weights_that_do_not_fit_the_config(folder, changes, without, problem, id2label):
    change_weights(folder, changes, without)
    with pytest.raises(UserError, match=f"of '{folder}' do not fit its config.json.*{re.escape(problem)}"):
        load_classifier(folder, id2label=id2label)


def test_a_config_of_more_layers_than_weights(folder):
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(UserError, match=r"do not fit its config.json \(missing: vit\.layers\.2\..*q_proj"):
        load_classifier(folder)


def test_a_config_with_impossible_values(folder):
    change_config(folder, hidden_size="wide")
    with pytest.raises(UserError, match=f"'{folder}' cannot be read"):
        load_classifier(folder)


@pytest.mark.parametrize("size", [None, [], [32]])
def test_a_size_that_is_none(tmp_path, size):
    folder = save_clip(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["image_size"] = size
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"--model: (the config.json of .* says image_size .*numbers|.* cannot be read: )"
    ):
        load_classifier(folder, class_names=["ant"])


def test_images_of_no_size(tmp_path):
    folder = save_clip(tmp_path / "clip")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"crop_size": 0}))
    with pytest.raises(UserError, match="makes images of 0x0 pixels, but its config.json says image_size 32x32"):
        load_classifier(folder, class_names=["ant"])


def test_without_preprocessor_the_images_are_resized_to_the_models_size(folder, caplog):
    (folder / "preprocessor_config.json").unlink()
    _, image_processor = load_classifier(folder)
    assert f"{folder} holds no preprocessor_config.json: images are resized to 32x32 pixels" in caplog.text
    assert dict(image_processor.size) == {"height": 32, "width": 32}
    assert tuple(image_processor.image_mean) == tuple(image_processor.image_std) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_channels": 1}, "takes images of 1 channels (num_channels), and images are read in RGB here"),
        ({"id2label": {}, "num_labels": 0}, "has no classes (num_labels is 0): choose a checkpoint"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            "is quantised (its config.json has a quant",
        ),
        (
            {"image_size": 48},
            "makes images of 32x32 pixels, but its config.json says image_size 48x48: correct",
        ),
        ({"num_attention_heads": -1}, "says num_attention_heads -1: give a number above 0."),
    ],
)
def test_settings_that_no_map_can_be_made_with(folder, settings, sentence):
    change_config(folder, **settings)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_classifier(folder)


def test_a_model_without_classes_gets_a_head(folder):
    change_config(folder, id2label={}, num_labels=0)
    change_weights(folder, {}, ["classifier.weight", "classifier.bias"])
    assert classifier_config(folder).num_labels == 0
    model, _ = load_classifier(folder, id2label=LABELS)
    assert model.config.id2label == LABELS and model.classifier.out_features == len(LABELS)


def test_a_backbones_configuration_has_no_labels(folder):
    assert classifier_config(folder).num_labels == 5
    change_config(folder, architectures=["ViTModel"])
    assert classifier_config(folder).id2label == {}


def test_code_from_a_repository_is_never_run(folder):
    for file, auto_class in (("config.json", "AutoConfig"), ("preprocessor_config.json", "AutoImageProcessor")):
        (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(settings | {"auto_map": {auto_class: "evil.Evil"}}))
    load_classifier(folder)
    change_config(folder, model_type="evil")
    with pytest.raises(UserError, match="model type evil"):
        load_classifier(folder)
    assert not (folder / "ran").exists()


def test_a_model_type_of_two_lines_is_told_in_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "a\nb"}))
    with pytest.raises(UserError, match=r"\(model type a b\): it is not known"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "a\nb", "num_classes": 5, "pretrained_cfg": {}}))
    with pytest.raises(UserError, match="is timm's a b, and only"):
        load_classifier(tmp_path)
