"""Cue conflicts, edges and silhouettes in their official layout; the decision among 16 classes, and shape bias."""

import numpy as np
import pytest
from official_layouts import evaluate_set, save_image, whole_logits
from planted_benchmarks import photographs, vit

from hf_robustvit.builders import load_benchmark
from hf_robustvit.builders.cue_conflict import SIXTEEN_CLASSES
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.imagenet_classes import NAMES


CLASSES = sorted(SIXTEEN_CLASSES)


def decide(logits: np.ndarray) -> str:
    """The authors' decision for one image: the class with the highest mean of its ImageNet classes' probabilities."""
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    best, highest = None, -np.inf
    for name in CLASSES:
        mean = np.mean([probabilities[index] for index in SIXTEEN_CLASSES[name]])
        if mean > highest:
            best, highest = name, mean
    return best


def test_the_sixteen_classes():
    sizes = {"bird": 49, "dog": 109, "truck": 8, "bottle": 7, "cat": 6, "boat": 5, "bear": 4, "chair": 4, "car": 3}
    sizes |= {"clock": 3, "bicycle": 2, "elephant": 2, "keyboard": 2, "airplane": 1, "knife": 1, "oven": 1}
    assert {name: len(indices) for name, indices in SIXTEEN_CLASSES.items()} == sizes
    assert len({index for indices in SIXTEEN_CLASSES.values() for index in indices}) == 207
    assert [NAMES[index] for index in SIXTEEN_CLASSES["elephant"]] == ["Indian elephant", "African elephant"]
    assert [NAMES[index] for index in SIXTEEN_CLASSES["oven"]] == ["rotisserie"]


@pytest.fixture
def stimuli(tmp_path):
    """80 photographs, each named after the shape or the texture that a tiny model sees in it, or neither."""
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    images = {}
    for number, path in enumerate(photographs(tmp_path / "made", 80)):
        decision = decide(whole_logits(checkpoint.model, [path])[0])
        other = [name for name in CLASSES if name != decision]
        first, second = other[number % 15], other[(number + 4) % 15]
        # Six in ten are decided for the shape, texture or both; the rest for neither.
        shape, texture = [
            (decision, first),
            (first, decision),
            (decision, decision),
            (first, second),
            (decision, second),
        ][number % 5]
        name = f"{shape}{number % 10 + 1}-{texture}{number % 3 + 1}{path.suffix}"
        target = tmp_path / "stimuli" / "style-transfer-preprocessed-512" / shape / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        images[target] = (shape, texture, decision)
    return checkpoint, images, tmp_path / "stimuli"


def test_shape_bias_and_accuracy_are_the_authors(stimuli):
    checkpoint, images, folder = stimuli
    result, frame = evaluate_set("cue-conflict", folder, checkpoint)
    shape_decisions = texture_decisions = 0
    for shape, texture, decision in images.values():
        if shape != texture:
            shape_decisions += decision == shape
            texture_decisions += decision == texture
    assert shape_decisions > texture_decisions > 5
    assert result.shape_bias == pytest.approx(100 * shape_decisions / (shape_decisions + texture_decisions))
    assert result.shape_bias_ci95[0] < result.shape_bias < result.shape_bias_ci95[1]
    assert result.top1 == pytest.approx(100 * np.mean([shape == decision for shape, _, decision in images.values()]))
    assert (result.group, result.interval) == ("object", "group bootstrap")
    assert result.protocol["label_space"] == "ImageNet indices, by the mean probability of a class"
    by_id = frame.set_index("image_id")
    assert {path: decision for path, (_, _, decision) in images.items()} == {
        path: by_id.loc[f"{path.parent.name}/{path.name}", "predicted"] for path in images
    }


def test_confidence_is_a_share_of_the_sixteen_means(stimuli):
    checkpoint, images, folder = stimuli
    _, frame = evaluate_set("cue-conflict", folder, checkpoint)
    path = next(iter(images))
    row = frame.set_index("image_id").loc[f"{path.parent.name}/{path.name}"]
    logits = whole_logits(checkpoint.model, [path])[0].astype(np.float64)
    means = {name: np.exp(logits[list(indices)]).mean() for name, indices in SIXTEEN_CLASSES.items()}
    best = sorted(means, key=means.get, reverse=True)[:5]
    np.testing.assert_allclose(
        row["top5_probabilities"], [means[name] / sum(means.values()) for name in best], rtol=1e-4
    )
    # Each class is told by the index that is likeliest, so that a map of it explains what was seen.
    assert row["top5_indices"].tolist() == [
        max(SIXTEEN_CLASSES[name], key=lambda index: logits[index]) for name in best
    ]


def test_rows(tmp_path):
    root = tmp_path / "style-transfer-preprocessed-512"
    for name in ("cat/cat7-elephant1.png", "cat/cat10-cat3.png", "oven/oven1-bird2.png"):
        save_image(root / name)
    rows = load_benchmark("cue-conflict", str(tmp_path), str(tmp_path / "cache"))
    assert rows.features["label"].names == CLASSES and rows["label"][:] == [7, 7, 14]
    assert rows["object"][:] == ["cat10", "cat7", "oven1"] and rows["texture"][:] == ["cat", "elephant", "bird"]
    save_image(root / "oven" / "oven1-unicorn2.png")
    with pytest.raises(UserError, match="cue-conflict: the name of .*oven1-unicorn2.png does not tell its texture"):
        load_benchmark("cue-conflict", str(tmp_path), str(tmp_path / "cache"))


@pytest.mark.parametrize(("name", "folder"), [("edges", "edges"), ("silhouettes", "filled-silhouettes")])
def test_edges_and_silhouettes(tmp_path, name, folder):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    hits = []
    for number, path in enumerate(photographs(tmp_path / "made", 12)):
        decision = decide(whole_logits(checkpoint.model, [path])[0])
        truth = decision if number % 2 else CLASSES[number]
        (tmp_path / folder / truth).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / folder / truth / f"{truth}{number}{path.suffix}")
        hits.append(decision == truth)
    result, frame = evaluate_set(name, tmp_path, checkpoint)
    assert result.top1 == pytest.approx(100 * np.mean(hits)) and result.shape_bias is None
    assert "texture" not in frame and result.interval == "score"
