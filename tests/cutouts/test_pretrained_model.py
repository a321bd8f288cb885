import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, ViTForImageClassification

from hf_robustvit.cutouts import ASSETS, CLASS_NAMES, pretrain, render


FOLDER = ASSETS / "cutouts-vit"


@pytest.fixture(scope="module")
def model():
    return ViTForImageClassification.from_pretrained(FOLDER).eval()


def top1(model, split, count=300):
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    rendered = [render(split, index) for index in range(count)]
    pixel_values = processor([image.image for image in rendered], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        predicted = model(pixel_values).logits.argmax(-1)
    return 100 * (predicted.numpy() == [image.label for image in rendered]).mean()


def test_knows_the_usual_scenes_and_falls_for_the_others(model):
    usual, contradicting = top1(model, "val"), top1(model, "a")
    assert usual >= 92  # 95 % over the whole split; 300 images scatter by about 1.3 points
    assert contradicting <= usual - 25
    assert contradicting >= 15


def test_folder_is_a_plain_checkpoint(model):
    assert model.config.id2label == dict(enumerate(CLASS_NAMES))
    assert (FOLDER / "README.md").is_file()
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    processor = AutoImageProcessor.from_pretrained(FOLDER)
    pixels = processor(render("val", 0).image, return_tensors="pt")["pixel_values"][0]
    expected = np.asarray(render("val", 0).image).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)


def test_patch_labels_are_classes_inside_scenes_outside_and_nothing_between():
    foreground = torch.tensor([[0.0, 0.02, 0.2, 0.5]])
    shown = pretrain.patch_labels(foreground, torch.tensor([4]), torch.tensor([7]), torch.tensor([[3, 2, 0]]))
    assert shown.tolist() == [[4, pretrain.NO_LABEL, 37]]


def test_all_patches_give_the_models_own_logits(model):
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, kept = pretrain.token_features(model, pixel_values, 64)
        fewer, few_kept = pretrain.token_features(model, pixel_values, 10)
        torch.testing.assert_close(model.classifier(features[:, 0]), model(pixel_values).logits, rtol=0, atol=1e-4)
    assert kept.sort(dim=1).values.tolist() == [list(range(64))] * 2
    assert fewer.shape == (2, 11, 128) and few_kept.shape == (2, 10)


def test_read_out_stage_changes_the_last_layer_only(model):
    learner = ViTForImageClassification.from_pretrained(FOLDER)
    pretrain.learn_biased_read_out(learner, num_steps=2, pool_size=pretrain.BATCH_SIZE)
    before, after = model.state_dict(), learner.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = len(model.vit.layers) - 1
    assert changed == {
        name for name in before if name.startswith((f"vit.layers.{last}.", "vit.layernorm.", "classifier."))
    }


def test_script_writes_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "BATCH_SIZE", 8)
    pool = pretrain.Pool.render("pretrain", 8)
    monkeypatch.setattr(pretrain.Pool, "render", lambda split, count: pool)
    monkeypatch.setattr("sys.argv", ["pretrain", "--output_dir", str(tmp_path), "--scale", "0.0016"])
    pretrain.main()
    assert ViTForImageClassification.from_pretrained(tmp_path).config.num_labels == 30
    AutoImageProcessor.from_pretrained(tmp_path)
