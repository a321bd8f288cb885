"""What the demo shows: which models, which pictures, and what they say; and the Space folder."""

import dataclasses
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from packaging.requirements import Requirement
from PIL import Image
from tiny_models import tiny_model
from transformers import ViTImageProcessorPil

from hf_robustvit import explain, load_classifier
from hf_robustvit.commands import app as demo
from hf_robustvit.commands.app import (
    PREDICTED,
    RULES,
    Classifier,
    DemoArguments,
    ask,
    build,
    common_class_names,
    distinct_class_names,
    drawn_examples,
    enlarged,
    example,
    folder_examples,
    launch,
    load_classifiers,
    read_upload,
)
from hf_robustvit.commands.evaluate import EvaluationArguments
from hf_robustvit.config import RobustViTConfig
from hf_robustvit.cutouts import CLASS_NAMES, USUAL_SCENES, render
from hf_robustvit.errors import UserError
from hf_robustvit.relevance import METHODS


ROOT = Path(__file__).parents[2]
NAMES = ("cat", "dog", "crane", "boat", "crane")


def tiny_classifier(seed: int = 0, **processor) -> Classifier:
    model = tiny_model("vit", seed=seed, id2label=dict(enumerate(NAMES)))
    image_processor = ViTImageProcessorPil(size={"height": 32, "width": 32}, do_convert_rgb=True, **processor)
    return Classifier("Tiny", model, image_processor, distinct_class_names(model.config))


def save(classifier: Classifier, folder: Path, **record) -> str:
    classifier.model.save_pretrained(folder)
    classifier.image_processor.save_pretrained(folder)
    if record:
        (folder / "robustvit.json").write_text(json.dumps(record))
    return str(folder)


def photograph(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def titles(arguments: DemoArguments) -> list[tuple[str, str]]:
    return [(each.title, each.model.name_or_path) for each in load_classifiers(arguments)]


def test_a_fresh_clone_has_the_original_alone_and_make_demo_adds_its_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert titles(DemoArguments()) == [("Original", "cutouts-vit")]
    save(tiny_classifier(), tmp_path / demo.DEMO_MODEL, base_model="cutouts-vit", base_revision=None)
    assert titles(DemoArguments()) == [("Original", "cutouts-vit"), ("Fine-tuned", "outputs/demo/model")]


def test_the_baseline_is_the_given_or_the_recorded_one_or_none(tmp_path):
    base = save(tiny_classifier(1), tmp_path / "base")
    model = save(tiny_classifier(), tmp_path / "model", base_model=base, base_revision=None)
    assert titles(DemoArguments(model=model)) == [("Original", base), ("Fine-tuned", model)]
    assert titles(DemoArguments(model=model, baseline="cutouts-vit"))[0] == ("Original", "cutouts-vit")
    assert titles(DemoArguments(model=base)) == [("Model", base)]


def test_models_that_cannot_be_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--baseline: 'cutouts-vit' is to be compared with a model; give one by --mo"):
        load_classifiers(DemoArguments(baseline="cutouts-vit"))
    model = save(tiny_classifier(), tmp_path / "model", method="robustvit")
    with pytest.raises(
        UserError, match="robustvit.json does not say which model it was fine-tuned from: name that one"
    ):
        load_classifiers(DemoArguments(model=model))


def test_classes_of_one_name_are_told_apart_and_only_common_ones_can_be_chosen():
    tiny = tiny_classifier()
    assert tiny.class_names == ("cat", "dog", "crane (2)", "boat", "crane (4)")
    other = Classifier("Other", tiny.model, tiny.image_processor, ("boat", "cat", "snail"))
    assert common_class_names([tiny, other]) == ["cat", "boat"]


def test_examples_show_objects_where_they_do_not_belong():
    for index in range(demo.NUM_EXAMPLES):
        image, caption = example(index)
        class_name, scene = caption.split(", scene: ")
        assert image.size == (64, 64) and class_name == CLASS_NAMES[index] and scene != USUAL_SCENES[class_name]


def test_drawn_examples_are_shown_for_cutouts_classes_alone():
    tiny = tiny_classifier()
    cutouts = dataclasses.replace(tiny, class_names=(*CLASS_NAMES[1:], "renamed"))
    assert [caption for _, caption in drawn_examples([cutouts])] == [
        example(index)[1] for index in range(demo.NUM_EXAMPLES)
    ]
    # "car" and "boat" are no Cutouts yet; what one of the two models does not know, they do not share.
    assert drawn_examples([dataclasses.replace(tiny, class_names=("car", "boat", "dog"))]) == []
    assert drawn_examples([cutouts, tiny]) == []


@pytest.mark.parametrize("inner", ["", "images"])
def test_examples_of_a_folder_by_class_are_evenly_spaced(tmp_path, inner):
    for name in ("n01440764", "ant, red", *(f"c{number:02}" for number in range(21))):
        (tmp_path / inner / name).mkdir(parents=True)
        photograph().save(tmp_path / inner / name / "0.jpg")
        (tmp_path / inner / name / "._0.jpg").write_bytes(b"of another system")
        (tmp_path / inner / name / "notes.txt").touch()
    (tmp_path / "masks" / "c00").mkdir(parents=True)
    if inner:
        photograph().save(tmp_path / "masks" / "c00" / "0.png")
    captions = [caption for _, caption in folder_examples(tmp_path)]
    assert captions == ["ant, red", *(f"c{number:02}" for number in range(1, 20, 2)), "tench"]


def test_examples_of_a_flat_folder_go_by_their_names_and_may_be_few(tmp_path):
    for name in ("b.webp", "a.png"):
        photograph(2048, 1024).save(tmp_path / name)
    examples = folder_examples(tmp_path)
    assert [(image.size, caption) for image, caption in examples] == [((1024, 512), "a"), ((1024, 512), "b")]


def test_examples_that_cannot_be_shown_are_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").touch()
    monkeypatch.setattr("sys.argv", ["app.py", "--examples", str(tmp_path)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert capsys.readouterr().err == (
        f"error: --examples: {tmp_path} has no images: name a folder of images, by class or without classes.\n"
    )
    (tmp_path / "cat" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="--examples: .*cat/1.jpg: The file is not an image that can be read"):
        folder_examples(tmp_path)


@pytest.mark.parametrize("class_name", [PREDICTED, "boat", "crane (4)"])
def test_the_answer_is_the_models_and_the_map_is_of_the_chosen_class(class_name):
    tiny, image = tiny_classifier(), photograph()
    answer = ask(tiny, image, class_name)
    pixel_values = tiny.image_processor(image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = tiny.model(pixel_values).logits[0]
    target = logits.argmax().item() if class_name == PREDICTED else tiny.class_names.index(class_name)
    assert answer.explained == tiny.class_names[target]
    assert list(answer.confidences) == list(tiny.class_names)
    np.testing.assert_allclose(list(answer.confidences.values()), logits.softmax(0), atol=1e-6)

    # Where the map is 0 and where it is 1 the overlay is that end of the colour scale over the greyed input.
    relevance = explain(tiny.model, pixel_values, torch.tensor([target])).relevance[0, 0].detach().numpy()
    overlay = answer.overlay[::14, ::14]  # each of 32 pixels is a square of 448 / 32
    grey = 0.45 * 0.8 * (pixel_values[0] * 0.5 + 0.5).mean(dim=0).numpy()
    for value, colour in ((0, (0.001462, 0.000466, 0.013866)), (1, (0.988362, 0.998364, 0.644924))):
        row, column = np.argwhere(relevance == value)[0]
        np.testing.assert_allclose(overlay[row, column] / 255, grey[row, column] + 0.55 * np.array(colour), atol=3e-3)


def test_maps_of_two_classes_and_of_all_rules_differ():
    tiny, image = tiny_classifier(), photograph()
    assert not np.array_equal(ask(tiny, image, "cat").overlay, ask(tiny, image, "dog").overlay)
    maps = {method: ask(tiny, image, "cat", method).overlay.tobytes() for _, method in RULES}
    flags = (get_args(get_type_hints(kind)["relevance_method"]) for kind in (RobustViTConfig, EvaluationArguments))
    assert tuple(maps) == METHODS == next(flags) == next(flags) and len({*maps.values()}) == len(METHODS)
    assert maps["gae"] == ask(tiny, image, "cat").overlay.tobytes()


def test_an_input_that_is_not_normalised_is_shown_in_its_own_brightness():
    plain = ask(tiny_classifier(do_normalize=False), Image.new("RGB", (32, 32), "white"), "cat").overlay
    assert plain.min(axis=-1).max() >= int(255 * 0.45 * 0.8)
    black = ask(tiny_classifier(do_normalize=False), Image.new("RGB", (32, 32), "black"), "cat").overlay
    assert black.min() <= 10


def test_small_pictures_are_shown_in_squares_and_large_ones_as_they_are():
    image = photograph(60, 40)
    large = enlarged(image)
    assert large.size == (420, 280)
    np.testing.assert_array_equal(np.asarray(large)[::7, ::7], np.asarray(image))
    assert enlarged(photograph(500, 20)).size == (500, 20)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_uploads_of_the_common_formats(tmp_path, suffix):
    photograph().save(tmp_path / f"picture.{suffix}")
    picture = read_upload(tmp_path / f"picture.{suffix}")
    assert picture.mode == "RGB" and picture.size == (60, 40)


def test_an_upload_is_turned_as_displayed_and_made_smaller(tmp_path):
    image = photograph(2000, 1000)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "phone.png", exif=exif)
    assert read_upload(tmp_path / "phone.png").size == (512, 1024)


def test_the_size_is_judged_before_a_pixel_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MAX_PIXELS", 2400)
    photograph(60, 40).save(tmp_path / "fits.png")
    photograph(60, 41).save(tmp_path / "large.png")
    assert read_upload(tmp_path / "fits.png").size == (60, 40)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match="The picture has 60 x 41 pixels: make it smaller, 2,400 pixels at most"):
        read_upload(tmp_path / "large.png")


def test_what_pillow_calls_a_bomb_is_refused(tmp_path, monkeypatch):
    photograph(60, 40).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # an error from twice as many
    with pytest.raises(UserError, match="far too large: make it smaller, 50,000,000 pixels at most"):
        read_upload(tmp_path / "bomb.png")


def test_bad_uploads_are_told_without_the_visitors_file_name(tmp_path):
    photograph(110, 10).save(tmp_path / "name.png")
    with pytest.raises(UserError, match="too narrow, 110 x 10 pixels: crop it"):
        read_upload(tmp_path / "name.png")
    photograph().save(tmp_path / "name.jpg")
    content = (tmp_path / "name.jpg").read_bytes()
    texts = {content[: len(content) // 2]: "truncated", b"<b>no</b>": "not an image", b"": "not an image"}
    # PostScript would start a program that draws it.
    texts[b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"] = "not an image"
    texts[b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"] = "not an image"
    for content, text in texts.items():
        (tmp_path / "name.png").write_bytes(content)
        with pytest.raises(UserError, match=text) as refused:
            read_upload(tmp_path / "name.png")
        assert "name" not in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_only_a_fresh_clone_is_told_to_make_the_other_model():
    tiny = tiny_classifier()
    original, fine_tuned = (dataclasses.replace(tiny, title=title) for title in ("Original", "Fine-tuned"))
    for shown, told in (([original], True), ([tiny], False), ([original, fine_tuned], False)):
        assert ("make demo" in str(build(shown).get_config_file())) == told


def test_the_page_says_that_its_examples_are_drawn_where_they_are(tmp_path):
    tiny = tiny_classifier()
    cutouts = dataclasses.replace(tiny, class_names=CLASS_NAMES)
    photograph().save(tmp_path / "photo.png")
    for shown, told in ((build([cutouts]), True), (build([tiny]), False), (build([cutouts], tmp_path), False)):
        page = shown.get_config_file()
        (gallery,) = (part["props"] for part in page["components"] if part["props"].get("elem_id") == "examples")
        assert ("drawn objects" in str(page)) == told
        assert (
            gallery["visible"]
            == bool(gallery["value"])
            == any(step["targets"][0][1] == "load" for step in page["dependencies"])
        )


def test_a_port_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: {port} cannot be used"):
            launch(DemoArguments(port=port), prevent_thread_lock=True, quiet=True)
    with pytest.raises(UserError, match="--port: 99999 cannot be used"):
        launch(DemoArguments(port=99999), prevent_thread_lock=True, quiet=True)


@pytest.mark.parametrize("script", ["app.py", "space/app.py"])
def test_a_missing_model_ends_the_script_with_one_sentence(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script, *(["--model", "no-such-model"] if script == "app.py" else [])])
    monkeypatch.setenv("MODEL", "no-such-model")
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stopped.value.code == 2
    assert re.fullmatch(r"error: --model: .*'no-such-model'.*\n", capsys.readouterr().err)


def test_the_space_folder_fits_the_project():
    header = metadata_load(ROOT / "space" / "README.md")
    assert header["sdk"] == "gradio" and (ROOT / "space" / header["app_file"]).is_file()
    assert f"gradio=={header['sdk_version']}" in (ROOT / "requirements.txt").read_text().splitlines()
    assert header["license"] == "mit" and header["title"] == demo.TITLE and len(header["short_description"]) <= 60
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "space" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == needed
    (extra,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["app"]
    assert Requirement(extra).specifier.contains(header["sdk_version"])


def test_the_space_starts_from_a_folder_of_its_own(tmp_path):
    """As README.md lays it out: space/ at the top, the package and the demo's model beside it."""
    shutil.copytree(ROOT / "space", tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "hf_robustvit", tmp_path / "hf_robustvit", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "hf_robustvit" / "commands" / "app.py"
    module.write_text(module.read_text().replace(demo.TITLE, "The copy"))  # so that it is this one that is imported
    save(tiny_classifier(), tmp_path / demo.DEMO_MODEL, base_model="cutouts-vit", base_revision=None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "NO_PROXY": "*", "PYTHONPATH": ""}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        while f"127.0.0.1:{port}" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
            parts = json.load(answer)["components"]
    finally:
        process.terminate()
        process.wait()
    headings = [part["props"]["value"] for part in parts if part["type"] == "markdown"]
    assert headings[0].startswith("# The copy") and len(headings) == 4, headings  # the picture's and two models'


def test_the_embedded_model_answers_its_own_pictures():
    model, image_processor = load_classifier("cutouts-vit")
    classifier = Classifier("Original", model, image_processor, distinct_class_names(model.config))
    image = render("val", 3)
    answer = ask(classifier, image.image)
    assert answer.explained == max(answer.confidences, key=answer.confidences.get) == CLASS_NAMES[image.label]
    assert answer.overlay.shape == (448, 448, 3) and answer.overlay.dtype == np.uint8
