"""Spurious ImageNet in its official layout, and the score that separates its images from ImageNet's."""

import numpy as np
import pytest
from official_layouts import evaluate_set, plain_logits, save_image, whole_logits
from planted_benchmarks import photographs, vit

from hf_robustvit.builders import load_benchmark
from hf_robustvit.builders.spurious_imagenet import SpuriousImageNet
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.combined import combine
from hf_robustvit.imagenet_classes import WNIDS


def test_rows(tmp_path):
    root = tmp_path / "spurious_imagenet" / "images"
    for folder in (
        "spurious_class_309_component_12",
        "spurious_class_14_component_3",
        "spurious_class_14_component_9",
    ):
        save_image(root / folder / "a.jpg")
    (root / "timestamp.txt").write_text("1")
    rows = load_benchmark("spurious-imagenet", str(tmp_path), str(tmp_path / "cache"))
    assert rows.features["absent_class"].names == [WNIDS[14], WNIDS[309]] and "label" not in rows.column_names
    assert rows["absent_class"][:] == [0, 0, 1]
    assert rows["image_id"][:2] == ["spurious_class_14_component_3/a.jpg", "spurious_class_14_component_9/a.jpg"]
    builder = SpuriousImageNet(config_name="spurious-imagenet", data_dir=str(root), cache_dir=str(tmp_path / "other"))
    stream = builder.as_streaming_dataset(split="test")
    assert [row["image_id"] for row in stream] == rows["image_id"][:]
    save_image(root / "spurious_class_bee" / "a.jpg")
    with pytest.raises(UserError, match=r"spurious-imagenet: 1 of the 4 folders .* \(first: spurious_class_bee\)"):
        load_benchmark("spurious-imagenet", str(root), str(tmp_path / "cache"))


def average_precision(shown: list[float], absent: list[float]) -> float:
    """The mean, over the images that show the class, of the precision among those at least as probable."""
    precisions = []
    for threshold in shown:
        right, wrong = (sum(score >= threshold for score in scores) for scores in (shown, absent))
        precisions.append(right / (right + wrong))
    return float(np.mean(precisions))


def test_the_score_equals_an_independent_loop(tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    classes = {3: 40, 90: 7}  # ImageNet index -> the component of its feature
    made, shown, absent = iter(photographs(tmp_path / "made", 32)), {}, {}
    taken = []
    for index, component in classes.items():
        shown[index], absent[index] = [], []
        for number in range(16):
            path = next(made)
            if number < 6:
                target = tmp_path / "val" / WNIDS[index] / path.name
            else:
                target = tmp_path / "images" / f"spurious_class_{index}_component_{component}" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            logits = (
                plain_logits(checkpoint.model, [target], "paper")
                if number < 6
                else whole_logits(checkpoint.model, [target])
            )
            odds = np.exp(logits[0].astype(np.float64))
            (shown if number < 6 else absent)[index].append(odds[index] / odds.sum())
            if number >= 6:
                taken.append(int(odds.argmax()) == index)
    results, frames = zip(
        *(evaluate_set(name, tmp_path, checkpoint) for name in ("spurious-imagenet", "imagenet-val")), strict=True
    )
    assert results[0].top1 is None and results[0].spurious_top1 == pytest.approx(100 * np.mean(taken))
    expected = np.concatenate([absent[index] for index in classes])
    np.testing.assert_allclose(frames[0]["class_probability"], expected, rtol=1e-3)
    (score,) = combine(tmp_path / "out", results)
    by_class = [average_precision(shown[index], absent[index]) for index in classes]
    assert 0 < min(by_class) < max(by_class) < 1
    assert (score.dataset, score.num_images) == ("spurious-score", 32)
    assert score.spurious_score == pytest.approx(100 * np.mean(by_class))
    assert score.spurious_score_ci95 == pytest.approx([100 * min(by_class), 100 * max(by_class)])
