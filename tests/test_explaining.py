"""`python -m hf_robustvit explain`: the map of the predicted or a given class, and each mistake's sentence."""

import numpy as np
import pytest
import torch
from photo_folder import save_model, save_photos
from PIL import Image

from hf_robustvit import explain, load_classifier
from hf_robustvit.__main__ import main
from hf_robustvit.command_line import exit_on_user_error
from hf_robustvit.reporting import overlays


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
    draw = overlays.overlay_grid

    def spy(path, images, labels, explained, masks=None):
        batches.append(explained["relevance"])
        draw(path, images, labels, explained, masks)

    monkeypatch.setattr("hf_robustvit.explaining.overlay_grid", spy)
    return batches


def expected(index=None):
    model, image_processor = load_classifier("model")
    pixel_values = image_processor(Image.open("photo.png").convert("RGB"), return_tensors="pt")["pixel_values"]
    explanation = explain(model, pixel_values, None if index is None else torch.tensor([index]))
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
        (("model", "photo.png", "--target", "6"), "--target: there is no '6'."),
        (("modle", "photo.png"), "--model: there is no 'modle'. Did you mean model"),
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
    assert not (place / "photo_relevance.png").exists()
