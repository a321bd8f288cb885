"""ImageNet-C in its official layout, and the mean corruption error."""

import shutil

import numpy as np
import pytest
from official_layouts import evaluate_set, save_image, whole_logits
from planted_benchmarks import photographs, vit

from hf_robustvit.builders import benchmark_names, load_benchmark
from hf_robustvit.builders.imagenet_c import CORRUPTIONS
from hf_robustvit.errors import UserError
from hf_robustvit.evaluation.checkpoint import Checkpoint
from hf_robustvit.evaluation.combined import ALEXNET_ERRORS, combine
from hf_robustvit.imagenet_classes import WNIDS


def test_rows(tmp_path):
    root = tmp_path / "weather" / "fog"
    for severity in range(1, 6):
        save_image(root / str(severity) / WNIDS[7] / "ILSVRC2012_val_00000002.JPEG")
    save_image(root / "3" / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG")
    rows = load_benchmark("imagenet-c-fog", str(tmp_path), str(tmp_path / "cache"))
    assert rows.features["label"].names == list(WNIDS)
    assert rows["label"][:] == [7, 7, 1, 7, 7, 7] and rows["value"][:] == [1, 2, 3, 3, 4, 5]
    assert rows["object"][2] == f"{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG"
    assert rows["image_id"][2] == f"3/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG"
    save_image(root / "2" / "n00000000" / "a.JPEG")
    with pytest.raises(UserError, match=r"imagenet-c-fog: .* \(first: 2/n00000000\)"):
        load_benchmark("imagenet-c-fog", str(root), str(tmp_path / "cache"))
    shutil.rmtree(root / "4")
    with pytest.raises(UserError, match=r"imagenet-c-fog: .*fog has no folder 4. Expected fog/<1 to 5>/<wnid>"):
        load_benchmark("imagenet-c-fog", str(root), str(tmp_path / "cache"))


def test_the_group_has_the_fifteen_corruptions_that_alexnet_was_run_on():
    names = benchmark_names(["imagenet-c"], for_imagenet=True)
    assert sorted(names) == sorted(f"imagenet-c-{corruption}" for corruption in ALEXNET_ERRORS) and len(names) == 15


def test_the_mean_corruption_error_equals_an_independent_loop(tmp_path):
    checkpoint = Checkpoint("tiny", None, *vit(1000))
    photos = photographs(tmp_path / "made", 4)
    guesses = whole_logits(checkpoint.model, photos).argmax(axis=1)
    rng, results, ratios, accuracies = np.random.default_rng(0), [], [], []
    for corruption in (name for names in CORRUPTIONS.values() for name in names):
        errors = []
        for severity in range(1, 6):
            wrong = 0
            for number, guess in enumerate(guesses):
                # A photo's class stays; a corruption shows another photo in its place.
                shown = int(rng.integers(4)) if rng.random() < severity / 6 else number
                target = tmp_path / corruption / str(severity) / WNIDS[guess] / f"ILSVRC2012_val_{number}.JPEG"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(photos[shown], target)
                wrong += guesses[shown] != guess
            errors.append(wrong / 4)
        results.append(evaluate_set(f"imagenet-c-{corruption}", tmp_path, checkpoint)[0])
        assert results[-1].top1 == pytest.approx(100 * (1 - np.mean(errors)))
        ratios.append(np.mean(errors) / ALEXNET_ERRORS[corruption])
        accuracies.append(1 - np.mean(errors))
    assert results[0].group == "object"
    (combined,) = combine(tmp_path / "out", results)
    assert 0 < combined.mean_corruption_error == pytest.approx(100 * np.mean(ratios))
    assert combined.mean_top1 == pytest.approx(100 * np.mean(accuracies))
    assert combined.protocol["paired"] is True and combined.num_images == 15 * 5 * 4
    assert (
        combined.mean_corruption_error_ci95[0]
        < combined.mean_corruption_error
        < combined.mean_corruption_error_ci95[1]
    )


def test_alexnets_own_mean_corruption_error_is_100():
    # The mean errors of AlexNet over the severities of two corruptions, as tables of it list them.
    assert ALEXNET_ERRORS["gaussian_noise"] == pytest.approx(np.mean([0.69528, 0.82542, 0.93554, 0.98138, 0.99452]))
    assert ALEXNET_ERRORS["shot_noise"] == pytest.approx(np.mean([0.71224, 0.85108, 0.93574, 0.98182, 0.99146]))
