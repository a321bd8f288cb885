"""--source text, from class names to files: planted boxes where a value must be right, and the real classes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback_hub import MAIN, LoopbackHub
from mask_images import photograph
from PIL import Image
from tiny_text_models import save_text_model

import run_masks
from hf_robustvit.builders.image_mask_folder import load_images
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading, read_pair
from hf_robustvit.errors import UserError
from hf_robustvit.masks import OPTIONS, QualityGate, TextMasker, TextOptions, with_made_masks
from hf_robustvit.masks.text_models import Detector, Found, Segmenter


ROOT = Path(__file__).parents[2]
CAT, DOG = (10, 20, 50, 60), (60, 10, 90, 30)
ALL = ("--min_area", 0, "--max_area", 1, "--max_components", 10000, "--max_null", 9)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: str(save_text_model(kind, folder / kind))
        for kind in ("grounding-dino", "owlv2", "clipseg", "sam", "sam2")
    }


@pytest.fixture
def planted(models, monkeypatch):
    """A masker whose detector finds, by text, these boxes with these confidences, and whose masks are the boxes."""
    boxes = {}

    def detect(self, images, texts, threshold):
        found = []
        for text in texts:
            kept = sorted((one for one in boxes.get(text, []) if one[1] > threshold), key=lambda one: -one[1])
            found.append(Found(np.array([b for b, _ in kept]).reshape(-1, 4), np.array([score for _, score in kept])))
        return found

    def outline(self, images, boxes):
        masks = []
        for image, corners in zip(images, boxes, strict=True):
            masks.append(np.zeros((len(corners), image.height, image.width), dtype=bool))
            for mask, (left, top, right, bottom) in zip(masks[-1], corners.astype(int), strict=True):
                mask[top:bottom, left:right] = True
        return masks

    monkeypatch.setattr(Detector, "__call__", detect)
    monkeypatch.setattr(Segmenter, "__call__", outline)

    def make(found, image_ids=("cat/1.jpg",), size=(100, 80), **options):
        boxes.update(found)
        masker = TextMasker(TextOptions(models["grounding-dino"], segmenter=models["sam2"], **options))
        masker.check([*image_ids, "dog/0.jpg"])
        images = [masker.prepare(Image.new("RGB", size)) for _ in image_ids]
        return masker(images, list(image_ids))

    return make


def rectangles(*boxes, size=(100, 80)):
    mask = np.zeros(size[::-1], dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_all_objects_of_a_name_are_one_mask(planted):
    cats, dogs = planted({"cat": [(CAT, 0.6), (DOG, 0.9), ((0, 0, 9, 9), 0.2)]}, ["cat/1.jpg", "dog/1.jpg"])
    np.testing.assert_array_equal(np.asarray(cats.image) > 127, rectangles(CAT, DOG))
    assert (cats.scores.score, cats.scores.null_score, cats.scores.components) == (0.9, 0.0, 2)
    assert cats.scores.area == pytest.approx((1600 + 600) / 8000)
    assert dogs.scores is None and dogs.problem == "no box for 'dog' above --box_threshold 0.35"
    assert not dogs.foreground.any() and dogs.image.size == (100, 80)


def prompts(tmp_path, text):
    (tmp_path / "prompts.yaml").write_text(text)
    return str(tmp_path / "prompts.yaml")


def test_weights_are_summed_where_concepts_lie_on_each_other(planted, tmp_path):
    found = {"body": [(CAT, 0.5)], "fur": [((30, 0, 100, 80), 0.6)], "leash": [((40, 0, 50, 80), 0.9)]}
    file = prompts(tmp_path, "cat: {body: 0.3, fur: 0.2, leash: -1}")
    (mask,) = planted(found, prompts=file)
    np.testing.assert_array_equal(mask.foreground, rectangles((30, 20, 40, 60)))
    assert mask.scores.score == 0.6  # what is cut out does not count
    (mask,) = planted(found, prompts=prompts(tmp_path, "cat: [body, leash]"))
    np.testing.assert_array_equal(mask.foreground, rectangles(CAT, (40, 0, 50, 80)))
    (mask,) = planted(found, prompts=prompts(tmp_path, "cat: {body: 1, fur: -1, leash: -1}"))
    np.testing.assert_array_equal(mask.foreground, rectangles((10, 20, 30, 60)))
    (mask,) = planted(
        found | {"cover": [((0, 0, 100, 80), 0.9)]}, prompts=prompts(tmp_path, "cat: {fur: 1, cover: -1}")
    )
    assert mask.scores is None and mask.problem == "nothing is left of 'fur' where the concepts' weights are summed"
    (mask,) = planted(found, prompts=prompts(tmp_path, "cat: {tail: 1, leash: -1}"))
    assert mask.problem == "no box for 'tail' above --box_threshold 0.35"


@pytest.mark.parametrize(
    "rival, null_score",
    [
        ((CAT, 0.5), 0.5),  # the same box
        (((10, 20, 50, 40), 0.5), 0.5),  # half of it
        (((10, 20, 50, 39), 0.5), 0.0),  # less
        (((10, 20, 50, 60), 0.17), 0.0),  # below half of the threshold
        (((10, 20, 50, 60), 0.3), 0.3),
    ],
)
def test_the_null_prompt_is_looked_for_in_the_same_place(planted, rival, null_score):
    (mask,) = planted({"cat": [(CAT, 0.6), (DOG, 0.5)], "dog": [(DOG, 0.9), rival]})
    assert mask.scores.null_score == null_score
    reason = QualityGate().reason(mask.scores)
    expected = "the null prompt finds the same with confidence 0.50, more than 80% of the name's 0.60"
    assert reason == (expected if null_score == 0.5 else None)


def test_the_null_prompt_may_be_given_or_left_out(planted, caplog):
    found = {"cat": [(CAT, 0.6)], "dog": [(CAT, 0.5)], "umbrella": [(CAT, 0.4)]}
    assert planted(found, null_prompt="umbrella")[0].scores.null_score == 0.4
    assert planted(found, null_prompt="")[0].scores.null_score is None
    assert planted(found, null_prompt="cat")[0].scores.null_score is None  # is no rival of a cat
    assert "All classes have the same prompt" not in caplog.text
    assert planted(found, ["dog/1.jpg"])[0].scores.null_score is None
    assert (
        "All classes have the same prompt, so there is no other one to look for in its place: give one" in caplog.text
    )


def test_large_photos_shrink_and_their_masks_do_not(planted):
    (mask,) = planted({"cat": [((0, 0, 1333, 250), 0.6)]}, size=(2666, 1000))
    assert mask.foreground.shape == (500, 1333)
    picture = np.asarray(mask.image)
    assert picture.shape == (1000, 2666) and (picture[:498] == 255).all() and (picture[502:] == 0).all()


@pytest.fixture
def photos(tmp_path):
    for number, name in enumerate(("cat/0.png", "cat/1.jpg", "dog/0.png", "dog/2.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = photograph(number, (80 - 20 * (number == 2), 60))[0]
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        image.save(path, exif=exif)
    (tmp_path / "photos/dog/broken.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


def make_masks(photos, out, *flags):
    arguments = map(str, ["--images", photos, "--output_dir", out, "--source", "text", *flags])
    types = (run_masks.MaskArguments, QualityGate, MaskReading, *OPTIONS)
    run_masks.main(*parse_settings(*types, arguments=list(arguments)))
    return json.loads((out / "masks.json").read_text()) if (out / "masks.json").exists() else None


@pytest.mark.parametrize(
    "detector, segmenter",
    [("grounding-dino", "sam2"), ("grounding-dino", "sam"), ("owlv2", "sam2"), ("clipseg", None)],
)
def test_from_photos_to_files_with_the_real_classes(models, photos, tmp_path, detector, segmenter, monkeypatch):
    flags = ["--detector", models[detector], *(["--segmenter", models[segmenter]] if segmenter else []), *ALL]
    report = make_masks(photos, tmp_path / "out", *flags)
    settings, images = report["settings"], report["images"]
    assert settings["source"] == "text" and settings["detector"] == models[detector] and settings["prompts"] == {}
    assert settings["segmenter"] == (models[segmenter] if segmenter else None)
    assert "broken.jpg is not a picture" in images["dog/broken.jpg"]["reason"]
    for name, size in (("cat/0", (80, 60)), ("cat/1", (60, 80)), ("dog/0", (60, 60)), ("dog/2", (80, 60))):
        with Image.open(tmp_path / "out/masks" / f"{name}.png") as mask:
            assert mask.size == size and mask.getcolors()[-1][1] == 255
    assert {"area", "components", "score", "null_score"} < images["cat/1.jpg"].keys()
    assert "eigen_gap" not in images["cat/1.jpg"]
    assert (tmp_path / "out/contact_sheet.png").exists()

    one_by_one = make_masks(photos, tmp_path / "single", *flags, "--batch_size", 1)
    assert one_by_one["images"]["cat/0.png"] == pytest.approx(images["cat/0.png"], abs=0.01)
    monkeypatch.setattr(Detector, "__call__", lambda self, *_: pytest.fail())
    assert make_masks(photos, tmp_path / "out", *flags) == report  # what is there is kept


def test_a_turned_photo_is_outlined_as_it_is_displayed(planted, models, photos, tmp_path):
    planted({"cat": [((0, 0, 60, 20), 0.9)]})
    report = make_masks(
        photos, tmp_path / "out", "--detector", models["grounding-dino"], "--segmenter", models["sam2"]
    )
    assert report["images"]["cat/1.jpg"]["accepted"] and not report["images"]["dog/0.png"]["accepted"]
    with Image.open(tmp_path / "out/masks/cat/1.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 127, rectangles((0, 0, 60, 20), size=(60, 80)))


def test_no_box_in_any_photo(planted, models, photos, tmp_path):
    flags = "--detector", models["grounding-dino"], "--segmenter", models["sam2"]
    sentence = "--source text: none of the 5 images got a mask .first: cat/0.png: no box for 'cat' above --box_thres"
    with pytest.raises(UserError, match=sentence):
        make_masks(photos, tmp_path / "out", *flags)
    with pytest.raises(UserError, match="made with box_threshold 0.35, now it is 0.2"):
        make_masks(photos, tmp_path / "out", *flags, "--box_threshold", 0.2)


def test_training_takes_the_masks(planted, models, photos, tmp_path):
    planted({"cat": [((20, 10, 60, 50), 0.9)], "dog": [((0, 0, 30, 30), 0.9)]})
    masker = TextMasker(TextOptions(models["grounding-dino"], segmenter=models["sam2"]))
    rows = load_images(photos)
    (training,) = with_made_masks([rows], tmp_path / "made", masker, QualityGate())
    assert training["image_id"][:] == ["cat/0.png", "cat/1.jpg", "dog/0.png", "dog/2.png"]
    image, mask = read_pair(training[1])
    np.testing.assert_array_equal(np.asarray(mask) > 127, rectangles((20, 10, 60, 50), size=image.size))


@pytest.mark.parametrize("threshold", [0, 1, -0.1])
def test_thresholds_that_are_no_confidence(threshold):
    with pytest.raises(UserError, match="--box_threshold is a confidence between 0 and 1, found"):
        TextOptions(box_threshold=threshold)


def test_masks_of_two_sources_must_agree(planted, models, photos, tmp_path):
    for name, box in (("cat/0", (20, 10, 60, 50)), ("cat/1", (0, 0, 20, 20))):
        path = tmp_path / "other/masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (80, 60) if name == "cat/0" else (60, 80)
        Image.fromarray(rectangles(box, size=size).astype(np.uint8) * 255).save(path)
    planted({"cat": [((20, 10, 60, 40), 0.9)], "dog": [((0, 0, 30, 30), 0.9)]})
    flags = "--detector", models["grounding-dino"], "--segmenter", models["sam2"], "--null_prompt", "umbrella"
    images = make_masks(photos, tmp_path / "out", *flags, "--agree_with", tmp_path / "other")["images"]
    assert images["cat/0.png"]["accepted"] and images["cat/0.png"]["shared"] == pytest.approx(0.75)
    assert images["cat/1.jpg"]["reason"] == "IoU with the other source's mask is 0.00, less than 0.50"
    assert images["dog/0.png"]["reason"] == "IoU with the other source's mask is 0.00, less than 0.50"  # there is none
    images = make_masks(photos, tmp_path / "out", *flags)["images"]
    assert images["dog/0.png"]["accepted"] and "shared" not in images["cat/0.png"]
    with pytest.raises(UserError, match="--agree_with judges masks that a network makes, not boxes"):
        make_masks(photos, tmp_path / "out", "--source", "boxes", "--agree_with", tmp_path / "other")


def test_a_dry_run_makes_nothing(models, photos, tmp_path, capsys):
    flags = "--detector", models["owlv2"], "--segmenter", models["sam2"], "--dry_run"
    assert make_masks(photos, tmp_path / "out", *flags) is None and not (tmp_path / "out").exists()
    printed = capsys.readouterr().out
    assert (
        f"--detector {models['owlv2']}: on this machine.\n--segmenter {models['sam2']}: on this machine.\n" in printed
    )
    assert f"5 of 5 masks would be made in {tmp_path / 'out'}. Nothing was made." in printed
    make_masks(photos, tmp_path / "out", "--detector", models["clipseg"], "--dry_run")
    assert "--segmenter" not in capsys.readouterr().out


HUB_RUN = """
import sys, run_masks
from hf_robustvit.commands.settings import parse_settings
from hf_robustvit.data import MaskReading
from hf_robustvit.errors import UserError
from hf_robustvit.masks import OPTIONS, QualityGate

photos, out = sys.argv[1:]
types = (run_masks.MaskArguments, QualityGate, MaskReading, *OPTIONS)
for flags in (["--detector", "org/gated"], ["--detector", "org/owl", "--segmenter", "org/sam2", "--dry_run"],
              ["--detector", "org/clipseg", "--max_area", "1", "--max_null", "9", "--max_components", "9999"],
              ["--detector", "org/clipseg", "--dry_run"]):
    arguments = ["--images", photos, "--output_dir", out, "--source", "text", *flags]
    try:
        run_masks.main(*parse_settings(*types, arguments=arguments))
    except UserError as error:
        print(error)
"""


def test_models_of_the_hub(models, photos, tmp_path):
    root = tmp_path / "hub"
    for name, kind in (("org/owl", "owlv2"), ("org/sam2", "sam2"), ("org/clipseg", "clipseg")):
        (root / name).mkdir(parents=True)
        (root / name / MAIN).symlink_to(models[kind])
    with LoopbackHub(root, refused={"org/gated": (403, "GatedRepo")}) as hub:
        environment = hub.environment(HF_HUB_CACHE=str(tmp_path / "cache"), PYTHONPATH=str(ROOT))
        command = [sys.executable, "-c", HUB_RUN, str(photos), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0].startswith("--detector: 'org/gated' is gated: accept its terms")
    megabytes = {kind: (Path(models[kind]) / "model.safetensors").stat().st_size / 1e6 for kind in models}
    assert printed[1] == f"--detector org/owl: {megabytes['owlv2']:.1f} MB to download."
    assert printed[2] == f"--segmenter org/sam2: {megabytes['sam2']:.1f} MB to download."
    assert printed[-2] == "--detector org/clipseg: on this machine."
    report = json.loads((tmp_path / "out/masks.json").read_text())
    assert report["settings"]["detector_revision"] == MAIN and report["images"]["cat/0.png"]["accepted"]
