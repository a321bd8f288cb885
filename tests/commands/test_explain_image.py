"""`python -m hf_robustvit explain`: the map of the predicted or a given class, and each mistake's sentence."""

import numpy as np
import pytest
import torch
from photo_folder import save_model, save_photos
from PIL import Image
from transformers import PretrainedConfig

from hf_robustvit import explain, load_classifier
from hf_robustvit.__main__ import main
from hf_robustvit.commands.explain import class_index
from hf_robustvit.commands.settings import exit_on_user_error
from hf_robustvit.errors import UserError
from hf_robustvit.imagenet_classes import NAMES
from hf_robustvit.reporting.pictures import overlay_grid


CLASSES = ("ant", "bee, honey bee", "cow", "7", "elk", "fox")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with the folder `model` and the image `photo.png`."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", CLASSES)
    save_photos(tmp_path / "data", ("ant",), count=1)
    (tmp_path / "data/images/ant/0.png").rename(tmp_path / "photo.png")
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn: the maps and captions."""
    batches = []

    def spy(shown, path):
        batches.append(shown.explained["relevance"])
        overlay_grid(shown, path)

    monkeypatch.setattr("hf_robustvit.commands.explain.overlay_grid", spy)
    return batches


def expected(index=None, method="gae"):
    model, image_processor = load_classifier("model")
    pixel_values = image_processor(Image.open("photo.png").convert("RGB"), return_tensors="pt")["pixel_values"]
    explanation = explain(model, pixel_values, None if index is None else torch.tensor([index]), method)
    return explanation, explanation.logits.softmax(dim=-1)[0]


def test_the_predicted_class_is_explained_and_the_five_best_are_listed(place, drawn, capsys):
    main(["explain", "model", "photo.png"])
    explanation, probabilities = expected()
    best = probabilities.argsort(descending=True)[:5].tolist()
    printed = capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip() for row in rows] == [CLASSES[index] for index in best]
    assert [row[1].strip() for row in rows] == [f"{probabilities[index]:.1%}" for index in best]
    assert drawn[0].predictions == [CLASSES[best[0]]]
    np.testing.assert_allclose(drawn[0].maps[0], explanation.relevance[0, 0].detach(), atol=1e-5)
    with Image.open(place / "photo_relevance.png") as picture:
        assert picture.width > 300
    assert "The map is in photo_relevance.png" in printed


@pytest.mark.parametrize("method", ["libra", "rollout", "occlusion"])
def test_another_rule_makes_the_map(place, drawn, method):
    main(["explain", "model", "photo.png", "--relevance_method", method])
    wanted = expected(method=method)[0].relevance[0, 0].detach()
    np.testing.assert_allclose(drawn[0].maps[0], wanted, atol=1e-5)
    assert not np.allclose(drawn[0].maps[0], expected()[0].relevance[0, 0].detach(), atol=1e-2)


@pytest.mark.parametrize(
    ("target", "index"), [("elk", 4), ("2", 2), ("honey bee", 1), ("bee, honey bee", 1), ("7", 3)]
)
def test_a_class_is_chosen_by_name_or_index(place, drawn, target, index):
    main(["explain", "model", "photo.png", "--target", target, "-o", "maps/out.png"])
    explanation, probabilities = expected(index)
    assert drawn[0].predictions == [CLASSES[index]]
    assert drawn[0].confidences == [pytest.approx(probabilities[index].item(), abs=1e-5)]
    np.testing.assert_allclose(drawn[0].maps[0], explanation.relevance[0, 0].detach(), atol=1e-5)
    assert (place / "maps" / "out.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("model", "photo.png", "--target", "elg"), "--target: there is no 'elg'. Did you mean elk?"),
        (("model", "photo.png", "--target", "6"), "--target: there is no '6'. The model's classes are 0 to 5."),
        (("model", "photo.png", "--target", "-1"), "--target: there is no '-1'. The model's classes are 0 to 5."),
        (("model", "photo.png", "-o", "missing"), "--output: missing is neither a folder that exists nor the name of"),
        (("nowhere", "photo.png", "-o", "photo.png/map.png"), "--output: photo.png/map.png cannot be written ("),
        (
            ("nowhere", "photo.png", "-o", f"{'m' * 300}.png"),
            f"--output: {'m' * 300}.png cannot be written (File name",
        ),
        (("nowhere", "photo.png", "-o", "/proc/map.png"), "--output: /proc/map.png cannot be written ("),
        (("modle", "photo.png"), "--model: there is no 'modle'. Did you mean model"),
        (("modle", "photo.png", "-o", "new.png"), "--model: there is no 'modle'."),
        (("model", "foto.png"), "foto.png: No such file or directory"),
        (("model", "model/config.json"), "model/config.json is not a picture"),
        (("model", "model"), "model: Is a directory"),
    ],
)
def test_each_mistake_is_one_sentence(place, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stopped, exit_on_user_error():
        main(["explain", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {sentence}")
    assert not {"photo_relevance.png", "new.png"} & {path.name for path in place.rglob("*")}


def test_the_map_is_written_into_a_folder_that_exists(place, capsys):
    (place / "maps.png").mkdir()
    main(["explain", "model", "photo.png", "-o", "maps.png"])
    assert "The map is in maps.png/photo_relevance.png." in capsys.readouterr().out
    with Image.open(place / "maps.png" / "photo_relevance.png") as picture:
        assert picture.width > 300


def test_the_model_runs_once(place, monkeypatch):
    model, image_processor = load_classifier("model")
    calls = []
    model.register_forward_hook(lambda *_: calls.append("forward"))
    monkeypatch.setattr("hf_robustvit.commands.explain.load_classifier", lambda *_, **__: (model, image_processor))
    main(["explain", "model", "photo.png"])
    assert calls == ["forward"]


def config_of(*labels):
    return PretrainedConfig(id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})


@pytest.mark.parametrize("name", ["crane", "deer"])
def test_a_name_of_two_classes_is_refused(name):
    config = config_of("ant", "crane", "elk, deer", "crane", "fox, deer", "deer fly")
    indices = "1 and 3" if name == "crane" else "2 and 4"
    sentence = f"--target: the model has 2 classes called '{name}', {indices}: say "
    with pytest.raises(UserError, match=sentence):
        class_index(name, config)
    assert class_index("3", config) == 3


def test_a_whole_name_wins_over_one_between_commas():
    assert class_index("maillot", config_of("maillot, tank suit", "maillot")) == 1


def test_classes_of_imagenet_go_by_their_wnids():
    config = config_of(*NAMES)
    assert class_index("n01443537", config) == 1
    with pytest.raises(UserError, match="^--target: there is no '####'. Known names: .{,80} others.$"):
        class_index("####", config)
