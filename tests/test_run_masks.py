"""run_masks.py on a folder of images: what it leaves, what it keeps, what it rejects, and each mistake's sentence."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from mask_images import colour_features, photograph, save_backbone
from PIL import Image, PngImagePlugin
from tiny_onnx import save_saliency
from tiny_text_models import save_text_model

import run_masks
from hf_robustvit.builders.image_mask_folder import load_image_mask_folder
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError
from hf_robustvit.masks import OPTIONS, SOURCES, Source
from hf_robustvit.masks.backbone import Backbone
from hf_robustvit.masks.quality import QualityGate
from hf_robustvit.masks.tokencut import ObjectMask, TokenCut, TokenCutOptions


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def photos(tmp_path):
    """Two classes of good images, one of one colour, one that is broken; with annotated masks of the good ones."""
    for number, name in enumerate(("cat/0.png", "cat/1.jpg", "dog/0.png", "dog/2.webp")):
        image, mask = photograph(number)
        for kind, picture, suffix in (("images", image, None), ("masks", mask, ".png")):
            path = tmp_path / "data" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path.with_suffix(suffix or path.suffix))
    Image.new("RGB", (50, 40), "teal").save(tmp_path / "data/images/dog/flat.png")
    (tmp_path / "data/images/dog/broken.jpg").write_bytes(b"no picture")
    return tmp_path / "data"


def make_masks(photos, out, *flags):
    arguments = ["--images", photos, "--output_dir", out, "--image_size", 160, "--sigma_spatial", 8, *flags]
    types = (run_masks.MaskArguments, QualityGate, MaskReading, *OPTIONS)
    run_masks.main(*parse_settings(*types, arguments=list(map(str, arguments))))
    return json.loads((out / "masks.json").read_text())


@pytest.fixture
def by_colour(monkeypatch):
    monkeypatch.setattr(Backbone, "key_features", colour_features)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_images_becomes_a_folder_of_masks(photos, backbone, tmp_path, by_colour, capsys):
    out = tmp_path / "out"
    report = make_masks(photos, out, "--backbone", backbone, "--annotated", photos / "masks")
    assert files(out / "masks") == {"cat/0.png", "cat/1.png", "dog/0.png", "dog/2.png"}
    assert files(out / "rejected") == {"dog/flat.png"}
    assert report["settings"]["backbone"] == str(backbone) and "backbone_revision" in report["settings"]
    good = report["images"]["cat/1.jpg"]
    assert good["accepted"] and good["reason"] is None and good["iou"] > 0.9
    assert good["area"] == pytest.approx(0.25, abs=0.03) and {"components", "agreement", "eigen_gap"} < good.keys()
    assert report["images"]["dog/flat.png"] == {"accepted": False, "reason": "the image has one colour"}
    assert "broken.jpg is not a picture" in report["images"]["dog/broken.jpg"]["reason"]
    printed = capsys.readouterr().out
    assert "4 of 6 masks accepted" in printed and "Rejected: dog/broken.jpg: the image cannot be read" in printed
    assert "Mean IoU with the annotated masks, accepted: 0.9" in printed
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (6 * 160, 160 + 54)

    (photos / "images/dog/flat.png").unlink()
    (photos / "images/dog/broken.jpg").unlink()
    pairs = load_image_mask_folder(photos, masks_dir=out / "masks", cache_dir=tmp_path / "cache")
    assert len(pairs) == 4 and np.asarray(pairs[0]["mask"]).max() == 255


def test_a_second_run_makes_what_is_missing_and_keeps_the_rest(photos, backbone, tmp_path, by_colour, monkeypatch):
    out = tmp_path / "out"
    first = make_masks(photos, out, "--backbone", backbone)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if "contact" not in path.name}
    (out / "masks/cat/0.png").unlink()
    seen = []
    ours = TokenCut.__call__
    monkeypatch.setattr(TokenCut, "__call__", lambda self, images, ids: seen.extend(ids) or ours(self, images, ids))
    second = make_masks(photos, out, "--backbone", backbone)
    assert seen == ["cat/0.png"] and second["images"] == first["images"]
    assert (first["made"]["images"], second["made"]["images"]) == (5, 6)
    assert 0 < first["made"]["seconds"] < second["made"]["seconds"]
    del kept[out / "masks/cat/0.png"]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_other_thresholds_judge_the_masks_that_are_there(photos, backbone, tmp_path, by_colour, monkeypatch):
    out = tmp_path / "out"
    make_masks(photos, out, "--backbone", backbone)
    monkeypatch.setattr(TokenCut, "__call__", lambda self, images, ids: pytest.fail() if ids else [])
    strict = make_masks(photos, out, "--backbone", backbone, "--max_area", 0.1)
    assert "more than 10.0%" in strict["images"]["cat/0.png"]["reason"]
    assert not files(out / "masks") and len(files(out / "rejected")) == 5
    make_masks(photos, out, "--backbone", backbone)
    assert len(files(out / "masks")) == 4


def test_the_summary_says_what_to_try_where_the_gate_rejects_most(photos, backbone, tmp_path, by_colour, capsys):
    make_masks(photos, tmp_path / "out", "--backbone", backbone)
    assert "Most masks" not in capsys.readouterr().out
    make_masks(photos, tmp_path / "out", "--backbone", backbone, "--max_area", 0.1)
    assert "Most masks were rejected: look at the contact sheet. If they miss the objects" in capsys.readouterr().out


def test_other_settings_do_not_mix_with_what_is_there(photos, backbone, tmp_path, by_colour):
    make_masks(photos, tmp_path / "out", "--backbone", backbone)
    with pytest.raises(UserError, match="out holds masks made with tau 0.2, now it is 0.3: name another output"):
        make_masks(photos, tmp_path / "out", "--backbone", backbone, "--tau", 0.3)
    network = save_saliency(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="made with source 'tokencut', now it is 'saliency': name another output"):
        make_masks(photos, tmp_path / "out", "--saliency_model", network)


@pytest.mark.parametrize("text", ["", "[]", "[" * 5000, '{"made": null}', '{"settings": [1]}'])
def test_a_broken_masks_json_is_told(photos, backbone, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/masks.json").write_text(text)
    with pytest.raises(UserError, match="masks.json does not say how the masks beside it were made .*: name another"):
        make_masks(photos, tmp_path / "out", "--backbone", backbone)


@pytest.mark.parametrize("text", ["1", '{"scores": {"area": "x"}}', '{"scores": {"area": 0.1}}', '{"problem": 3}'])
def test_scores_that_are_none_are_told(photos, backbone, tmp_path, by_colour, text):
    out = tmp_path / "out"
    make_masks(photos, out, "--backbone", backbone)
    info = PngImagePlugin.PngInfo()
    info.add_text("hf_robustvit", text)
    Image.new("L", (80, 60)).save(out / "masks/cat/0.png", pnginfo=info)
    with pytest.raises(UserError, match="cat/0.png: the mask cannot be read .*: delete it, and it will be made again"):
        make_masks(photos, out, "--backbone", backbone)


def test_two_images_that_would_share_a_mask(photos, backbone, tmp_path, by_colour):
    photograph()[0].save(photos / "images/cat/0.bmp")
    with pytest.raises(UserError, match="cat/0.bmp and cat/0.png would share one mask: rename one of them"):
        make_masks(photos, tmp_path / "out", "--backbone", backbone)


def test_annotated_masks_of_other_images(photos, backbone, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has a mask for none of the 6 images; the first would be .*cat/0.png"):
        make_masks(photos, tmp_path / "out", "--backbone", backbone, "--annotated", tmp_path / "empty")


def test_boxes_become_masks(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(TokenCut, "__init__", lambda *_: pytest.fail("no backbone is needed"))
    images = [
        {"id": n, "file_name": name, "width": 80, "height": 60} for n, name in enumerate(("cat/0.png", "2.webp"))
    ]
    boxes = [{"image_id": n, "bbox": [20, 15, 40, 30]} for n in range(2)]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    flags = ("--boxes", tmp_path / "boxes.json", "--annotated", photos / "masks")
    report = make_masks(photos, tmp_path / "out", *flags)
    assert make_masks(photos, tmp_path / "out", "--source", "boxes", *flags) == report
    assert files(tmp_path / "out/masks") == {"cat/0.png", "dog/2.png"}
    assert report["images"]["cat/0.png"] == {"accepted": True, "reason": None, "iou": 1.0}
    assert report["images"]["cat/1.jpg"]["reason"] == "boxes.json has no box for it"


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("x/0.png", "none of its 1 names"),
        ("cat\\0.png", r"none of the 6 images got a mask \(first: cat/0.png: its boxes"),
    ],
)
def test_boxes_of_other_images_end_the_run(photos, tmp_path, name, sentence):
    content = {"images": [{"id": 1, "file_name": name, "width": 9, "height": 9}]}
    content["annotations"] = [{"image_id": 1, "bbox": [1, 1, 4, 4]}]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"--boxes .*boxes.json: {sentence}"):
        make_masks(photos, tmp_path / "out", "--boxes", tmp_path / "boxes.json")


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (("--source", "saliency"), "Masks from saliency need --saliency_model"),
        (("--saliency_model", "none.onnx"), "--saliency_model: there is no file none.onnx"),
        (("--source", "boxes"), "--source boxes needs --boxes"),
        (("--boxes", "none.json"), "--boxes none.json cannot be read"),
        (("--source", "text", "--prompts", "none.yaml"), "--prompts none.yaml cannot be read"),
        (("--source", "text"), "the class folder '0001' says no name"),
        (("--backbone", "facebook/dino-vitb16"), "--backbone: 'facebook/dino-vitb16' cannot be loaded: .*OFFLINE"),
        (("--backbone", "facebook/dino-vitb61"), "--backbone: there is no 'face.*Did you mean facebook/dino-vitb16"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(photos, tmp_path, flags, sentence, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (photos / "images/dog").rename(photos / "images/0001")
    for further in ((), ("--dry_run", True)):
        if "'0001'" not in sentence or further:  # the run itself would first load the detector, which is not here
            with pytest.raises(UserError, match=sentence):
                make_masks(photos, tmp_path / "out", *flags, *further)


def test_a_dry_run_tries_two_batches_and_keeps_nothing(photos, backbone, tmp_path, by_colour, capsys):
    out, flags = tmp_path / "out", ("--backbone", backbone, "--batch_size", 2)
    with pytest.raises(FileNotFoundError, match="masks.json"):
        make_masks(photos, out, *flags, "--dry_run")
    told = capsys.readouterr().out
    assert not out.exists() and told.startswith("images: 6 found\nmasks: 4 of 4 that were tried accepted\na mask: ")
    seconds, whole = re.search(r"a mask: ([\d.]+) s on cpu, so 0:00:(\d\d) in all", told).groups()
    assert abs(6 * float(seconds) - int(whole)) < 1
    assert 0.1 < float(re.search(r"memory: ([\d.]+) GB at most", told)[1]) < 10
    assert told.endswith(f"on this machine.\n6 of 6 masks would be made in {out}. Nothing was made.\n")
    make_masks(photos, out, *flags)
    capsys.readouterr()
    make_masks(photos, out, *flags, "--dry_run")  # of what is missing: the broken image
    assert f"1 of 6 masks would be made in {out}." in capsys.readouterr().out


def test_the_next_command_trains_with_the_masks(photos, backbone, tmp_path, by_colour, capsys):
    make_masks(photos, tmp_path / "my masks", "--backbone", backbone)
    words = shlex.split(capsys.readouterr().out.rpartition("Then train with: ")[2])
    arguments, config, *_ = COMMANDS["finetune"].parse(words[words.index("--model") :])
    assert words[1:4] == ["-m", "hf_robustvit", "finetune"] and arguments.dataset == str(photos)
    assert arguments.masks == f"{tmp_path}/my masks/masks" and config.output_dir == f"{tmp_path}/my masks-model"


def test_a_dry_run_refuses_boxes_and_files_that_do_not_fit(photos, tmp_path):
    content = {"images": [{"id": 1, "file_name": "x/0.png", "width": 80, "height": 60}]}
    content["annotations"] = [{"image_id": 1, "bbox": [1, 1, 4, 4]}]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="boxes.json: none of its 1 names .* is that of one of the 6 images"):
        make_masks(photos, tmp_path / "out", "--boxes", tmp_path / "boxes.json", "--dry_run", True)
    photograph()[0].save(photos / "images/cat/0.bmp")
    with pytest.raises(UserError, match="cat/0.bmp and cat/0.png would share one mask"):
        make_masks(photos, tmp_path / "out", "--backbone", "cutouts-vit", "--dry_run", True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (("--source", "boxes"), "--source boxes needs --boxes: give a COCO .json file"),
        (("--source", "tokencut", "--boxes", "b.json"), "--boxes b.json is not used by --source tokencut: leave one"),
        (
            ("--source", "tokencut", "--saliency_model", "n.onnx"),
            "--saliency_model n.onnx is not used by --source",
        ),
        (("--source", "boxes", "--prompts", "p.yaml"), "--prompts p.yaml is not used by --source boxes: leave one"),
        (("--boxes", "b.json", "--saliency_model", "n.onnx"), "--saliency_model n.onnx is not used by --source boxes"),
        (("--source", "drawn"), "--source: there is no 'drawn'. Known names: tokencut, text, saliency, boxes"),
    ],
)
def test_a_source_and_its_flags_go_together(photos, tmp_path, flags, sentence):
    with pytest.raises(UserError, match=sentence):
        make_masks(photos, tmp_path / "out", *flags)


class WholeImages:
    origin, settings = "--source whole", {"source": "whole"}

    def prepare(self, image):
        return image.size

    def __call__(self, sizes, image_ids):
        return [ObjectMask(np.ones(size[::-1], dtype=bool), size) for size in sizes]


def test_a_new_source_is_one_row(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(SOURCES, "whole", Source(TokenCutOptions, lambda options, device: WholeImages()))
    report = make_masks(photos, tmp_path / "out", "--source", "whole")
    assert report["settings"] == {"source": "whole"} and report["images"]["cat/0.png"]["accepted"]
    with Image.open(tmp_path / "out/masks/cat/0.png") as mask:
        assert np.asarray(mask).min() == 255


def test_tokencut_without_a_mask_to_train_with(photos, backbone, tmp_path, by_colour, capsys):
    make_masks(photos, tmp_path / "out", "--source", "tokencut", "--backbone", backbone, "--max_area", 0.1)
    assert "nothing to train with yet" in capsys.readouterr().out
    make_masks(photos, tmp_path / "out", "--backbone", backbone)
    assert "look at" in capsys.readouterr().out
    blank = tmp_path / "blank"
    blank.mkdir()
    Image.new("RGB", (50, 40), "teal").save(blank / "flat.png")
    with pytest.raises(
        UserError, match="TokenCut: none of the 1 images got a mask .first: flat.png: the image has one"
    ):
        make_masks(blank, tmp_path / "other", "--backbone", backbone)


@pytest.mark.parametrize("inner", ["", "images"])
def test_images_without_classes(backbone, tmp_path, by_colour, inner):
    (tmp_path / "flat" / inner).mkdir(parents=True)
    photograph()[0].save(tmp_path / "flat" / inner / "one.jpg")
    (tmp_path / "flat" / inner / ".hidden.jpg").write_bytes(b"")
    report = make_masks(tmp_path / "flat", tmp_path / "out", "--backbone", backbone)
    assert report["images"].keys() == {"one.jpg"}
    assert files(tmp_path / "out/masks") == {"one.png"}


def test_a_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no class folders"):
        make_masks(tmp_path / "empty", tmp_path / "out")


def test_a_batch_is_held_at_its_working_size(backbone, tmp_path, by_colour, monkeypatch):
    (tmp_path / "data" / "c").mkdir(parents=True)
    for number in range(3):
        photograph(number, (2000, 1500))[0].save(tmp_path / "data" / "c" / f"{number}.png")
    held = []
    ours = TokenCut.__call__
    monkeypatch.setattr(TokenCut, "__call__", lambda self, images, ids: held.extend(images) or ours(self, images, ids))
    make_masks(tmp_path / "data", tmp_path / "out", "--backbone", backbone)
    assert [image.pixels.size for image in held] == [(160, 120)] * 3
    with Image.open(tmp_path / "out/masks/c/0.png") as mask:
        assert mask.size == (2000, 1500)


def test_a_batch_of_nothing(photos, tmp_path):
    with pytest.raises(UserError, match="--batch_size must be at least 1, found 0"):
        make_masks(photos, tmp_path / "out", "--batch_size", 0)


@pytest.mark.parametrize("source", ["tokencut", "text"])
def test_two_processes_leave_what_one_leaves(photos, backbone, tmp_path, source):
    out, alone = tmp_path / "out", tmp_path / "alone"
    flags = ["--images", photos / "images", "--source", source, "--batch_size", 1]
    if source == "tokencut":
        flags += ["--image_size", 80, "--backbone", backbone, "--min_eigen_gap", 0]
    else:
        models = [save_text_model(kind, tmp_path / kind) for kind in ("grounding-dino", "sam2")]
        flags += ["--detector", models[0], "--segmenter", models[1], "--max_area", 1, "--max_components", 9999]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", 2, "--num_machines", 1]
    command += ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for start, folder in ((command, out), ([sys.executable], alone)):
        line = [*map(str, [*start, ROOT / "run_masks.py", *flags, "--output_dir", folder])]
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("masks accepted") == 1
    reports = [json.loads((folder / "masks.json").read_text()) for folder in (out, alone)]
    assert reports[0]["images"].keys() == reports[1]["images"].keys() and len(reports[0]["images"]) == 6
    assert sum("area" in record for record in reports[0]["images"].values()) >= 4
    assert files(out) == files(alone)
    for name in files(out) - {"masks.json", "contact_sheet.png"}:
        np.testing.assert_array_equal(Image.open(out / name), Image.open(alone / name))


def test_annotated_masks_that_leave_the_object_open_are_refused_before_the_work(photos, backbone, tmp_path, by_colour):
    for path in (photos / "masks").rglob("*.png"):
        with Image.open(path) as mask:
            Image.eval(mask, lambda value: 1 if value else 2).save(path)  # 1 the object, 2 its background
    flags = ("--backbone", backbone, "--annotated", photos / "masks")
    with pytest.raises(UserError, match=r"--annotated: 4 of 4 masks cannot be read yet \(first: .*values 1, 2, and"):
        make_masks(photos, tmp_path / "out", *flags)
    assert not (tmp_path / "out/masks").exists()
    report = make_masks(photos, tmp_path / "out", *flags, "--mask_foreground", 1)
    assert report["images"]["cat/1.jpg"]["iou"] > 0.9
