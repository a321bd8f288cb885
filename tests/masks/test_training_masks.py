"""run_finetune.py with masks from TokenCut or a folder of masks: which images are trained on, and which are not."""

import json
import sys

import numpy as np
import pytest
from mask_images import colour_features, photograph, save_backbone
from PIL import Image
from tiny_models import tiny_model
from tiny_onnx import save_saliency
from transformers import ViTImageProcessorPil

import run_finetune
from hf_robustvit.builders import load_training_pairs
from hf_robustvit.commands.experiment import finetune_with
from hf_robustvit.cutouts import CLASS_NAMES
from hf_robustvit.data import MADE_MASKS, MaskReading
from hf_robustvit.data.mask_folder import mask_path, take_masks
from hf_robustvit.errors import UserError
from hf_robustvit.masks import SOURCES, QualityGate, TokenCut, TokenCutOptions, with_made_masks
from hf_robustvit.masks.backbone import Backbone


@pytest.fixture
def images(tmp_path):
    """Three classes of three photographs without masks; one training image has one colour."""
    for label, class_name in enumerate(("ant", "bee", "cow")):
        for number in range(3):
            path = tmp_path / "data/images" / class_name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(3 * label + number)[0].save(path)
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "data/images/ant/1.png")
    return tmp_path / "data"


@pytest.fixture
def finetune(tmp_path, monkeypatch):
    """Runs run_finetune.py for a step in this process."""
    monkeypatch.setattr(Backbone, "key_features", colour_features)
    backbone = save_backbone(tmp_path / "backbone")
    tiny_model("vit", num_labels=len(CLASS_NAMES)).save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")

    def run(dataset, masks, *flags):
        flags = ["--model", tmp_path / "model", "--dataset", dataset, "--masks", masks, *flags]
        flags += ["--output_dir", tmp_path / "out"]
        flags += ["--backbone", backbone, "--image_size", 160, "--sigma_spatial", 8] if masks == "tokencut" else []
        flags += ["--num_classes", 2, "--samples_per_class", 2, "--max_steps", 1, "--save_strategy", "no"]
        flags += ["--eval_strategy", "no", "--load_best_model_at_end", "false", "--use_cpu", "--report_to", "none"]
        monkeypatch.setattr(sys, "argv", ["run_finetune.py", *map(str, flags)])
        run_finetune.main()
        return json.loads((tmp_path / "out/robustvit.json").read_text())

    return run


def test_masks_are_made_for_the_chosen_images_only(images, finetune, tmp_path, caplog):
    caplog.set_level("INFO")
    record = finetune(images, "tokencut")
    assert record["mask_source"] == "tokencut"
    assert (record["arguments"]["image_size"], record["arguments"]["sigma_spatial"]) == (160, 8)
    assert record["training_images"] == ["ant/0.png", "bee/0.png", "bee/1.png"]
    assert record["validation_images"] == ["cow/0.png"]
    report = json.loads((tmp_path / "out/tokencut/masks.json").read_text())["images"]
    assert report.keys() == {"ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "cow/0.png"}
    assert "Rejected: ant/1.png: the image has one colour." in caplog.text
    assert (tmp_path / "out/tokencut/contact_sheet.png").exists()

    # The folder serves another run: what was rejected is left out, with a warning.
    pairs = load_training_pairs(str(images), masks=str(tmp_path / "out/tokencut/masks"))
    assert pairs["image_id"][:] == ["ant/0.png", "bee/0.png", "bee/1.png", "cow/0.png"]


def test_rejecting_every_mask_is_one_sentence(images, finetune):
    with pytest.raises(UserError, match="--masks tokencut: all 4 masks .* ant/0.png: mask covers .* lower the thres"):
        finetune(images, "tokencut", "--max_area", 0.02)


def test_every_source_is_known_to_the_data_sets():
    assert tuple(SOURCES) == MADE_MASKS


def test_masks_from_a_saliency_network(images, finetune, tmp_path, caplog):
    caplog.set_level("INFO")
    network = save_saliency(tmp_path / "network.onnx")
    record = finetune(images, "saliency", "--saliency_model", network, "--max_area", 0.4)
    assert record["mask_source"] == "saliency"
    assert (record["arguments"]["saliency_model"], record["arguments"]["max_area"]) == (str(network), 0.4)
    assert "saliency_mean" not in record["arguments"] and "backbone" not in record["arguments"]
    assert record["training_images"] == ["ant/0.png", "bee/0.png", "bee/1.png"]
    assert "Rejected: ant/1.png: mask covers 0.0% of the image" in caplog.text
    assert f"Masks from --saliency_model {network} in" in caplog.text
    report = json.loads((tmp_path / "out/saliency/masks.json").read_text())
    assert report["settings"]["source"] == "saliency" and report["made"]["images"] == 5
    assert "Masks: saliency" in (tmp_path / "out/README.md").read_text()


def test_a_saliency_network_must_be_named(images, finetune):
    with pytest.raises(UserError, match="Masks from saliency need --saliency_model"):
        finetune(images, "saliency")


def test_flags_for_annotated_masks_hold_where_only_validation_needs_them(images, tmp_path):
    for path in sorted((images / "images").rglob("*.png")):
        mask = np.asarray(Image.open(path)).mean(axis=-1) > 128  # what `save_saliency` finds, nearly
        (images / "masks" / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)).save(images / "masks" / path.parent.name / path.name)
    pairs = load_training_pairs(str(images))
    names = dict(enumerate(("ant", "bee", "cow")))
    tiny_model("vit", num_labels=3, id2label=names).save_pretrained(tmp_path / "model")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    flags = {"model": str(tmp_path / "model"), "dataset": str(images), "output_dir": str(tmp_path / "out")}
    flags |= {"masks": "saliency", "saliency_model": str(save_saliency(tmp_path / "network.onnx")), "max_area": 0.9}
    flags |= {"num_classes": 2, "samples_per_class": 2, "max_steps": 1, "load_best_model_at_end": False}
    flags |= {"save_strategy": "no", "eval_strategy": "no", "use_cpu": True, "report_to": "none"}
    validation, reading = pairs.select([0, 4, 8]), MaskReading(mask_foreground=["0"])
    before, _ = finetune_with(flags, pairs, validation, reading)
    assert 0 < before["eval_foreground_loss"] < 0.3
    report = json.loads((tmp_path / "out/saliency/masks.json").read_text())["images"]
    assert min(record["iou"] for record in report.values() if record["accepted"]) > 0.6


@pytest.fixture
def cutouts(monkeypatch):
    """The first images of six classes instead of all 3000."""
    from hf_robustvit import builders

    prepare = builders.prepare

    def prepare_some(builder, split):
        rows = prepare(builder, split)
        labels = np.asarray(rows["label"])
        return rows.select([row for label in range(6) for row in np.flatnonzero(labels == label)[:3]])

    monkeypatch.setattr(builders, "prepare", prepare_some)
    return builders


def test_cutouts_take_masks_from_a_folder(cutouts, tmp_path, caplog):
    pairs = load_training_pairs("cutouts")
    for image_id in pairs["image_id"][:4]:
        path = mask_path(tmp_path / "masks", image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (64, 64), 200).save(path)
    found = load_training_pairs("cutouts", masks=str(tmp_path))
    assert found["image_id"][:] == pairs["image_id"][:4]
    assert np.asarray(found[3]["mask"]).min() == 200
    assert found[3]["image"] == pairs[3]["image"]
    assert "14 of 18 images have no mask" in caplog.text
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none has a mask for none of the 18 images"):
        load_training_pairs("cutouts", masks=str(tmp_path / "none"))


def test_tokencut_on_cutouts_reports_the_iou_with_the_exact_masks(cutouts, finetune, tmp_path):
    flags = ("--min_agreement", 0, "--min_eigen_gap", 0, "--min_area", 0, "--max_area", 1, "--max_components", 999)
    record = finetune("cutouts", "tokencut", *flags)
    report = json.loads((tmp_path / "out/tokencut/masks.json").read_text())["images"]
    assert set(record["training_images"]) | set(record["validation_images"]) == report.keys()
    assert all(0 <= image["iou"] <= 1 for image in report.values())


def test_imagenet_s_takes_the_same_images_and_is_compared_with_its_own_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(Backbone, "key_features", colour_features)
    for number, wnid in enumerate(("n01440764", "n01443537")):
        image, mask = photograph(number)
        ids = np.zeros((60, 80, 3), dtype=np.uint8)
        ids[..., 0] = (np.asarray(mask) > 0) * (number + 1)
        for folder, picture, suffix in (
            ("train-semi", image, "JPEG"),
            ("train-semi-segmentation", Image.fromarray(ids), "png"),
        ):
            path = tmp_path / "ImageNetS919" / folder / wnid / f"{wnid}_1.{suffix}"
            path.parent.mkdir(parents=True)
            picture.save(path)
    pairs = load_training_pairs("imagenet-s", str(tmp_path), masks="tokencut")
    options = TokenCutOptions(str(save_backbone(tmp_path / "backbone")), image_size=160, sigma_spatial=8)
    parts = [pairs.select([0]), pairs.select([1])]
    training, validation = with_made_masks(parts, tmp_path / "made", TokenCut(options), QualityGate())
    assert training[0]["mask"].filename == str(tmp_path / "made/masks/n01440764/n01440764_1.png")
    assert validation["image_id"][:] == ["n01443537/n01443537_1.JPEG"]
    report = json.loads((tmp_path / "made/masks.json").read_text())["images"]
    assert min(record["iou"] for record in report.values()) > 0.9


def test_an_image_id_that_leads_out_of_the_folder(cutouts):
    with pytest.raises(UserError, match="'../secret.png' leads out of its folder"):
        mask_path("masks", "../secret.png")
    with pytest.raises(UserError, match="leads out"):
        take_masks(load_training_pairs("cutouts").map(lambda row: {"image_id": "/etc/x.png"}), "masks")
