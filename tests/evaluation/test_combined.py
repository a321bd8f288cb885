"""Figures of several data sets together, from predictions on disk."""

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.combined import ALEXNET_ERRORS, combine, compare_combined
from hf_robustvit.evaluation.results import BenchmarkResult, write_result
from hf_robustvit.evaluation.statistics import accuracy_interval


SAME, RAND = "imagenet-9-mixed_same", "imagenet-9-mixed_rand"


def write(folder, name, hits, photos):
    """A finished data set: whether each image is right, and the photograph it is of."""
    frame = pd.DataFrame(
        {
            "image_id": [f"{number:05d}" for number in range(len(hits))],
            "class_name": "dog",
            "label": 0,
            "top5_indices": [[0] if hit else [1] for hit in hits],
            "object": photos,
        }
    )
    result = BenchmarkResult(name, "m", None, len(hits), {"crop_border": 0}, "w", "d", top1=100 * float(np.mean(hits)))
    write_result(folder, result, frame)
    return result


def hits(share, count=400, seed=0):
    return np.random.default_rng(seed).permutation(count) < share * count


def test_the_gap_is_paired_by_photograph(tmp_path):
    same = hits(0.8)
    rand = same & hits(0.9, seed=1)  # nearly the same photographs are right
    photos = [f"p{number}" for number in range(400)]
    order = np.random.default_rng(2).permutation(400)
    results = [write(tmp_path, SAME, same, photos), write(tmp_path, RAND, rand[order], np.array(photos)[order])]
    (paired,) = combine(tmp_path, results)
    gap = same.mean() - rand.mean()
    assert paired.bg_gap == pytest.approx(100 * gap)
    # The standard error of a mean of paired differences.
    spread = 100 * 1.96 * np.std(same.astype(float) - rand) / 20
    assert paired.bg_gap_ci95 == pytest.approx([100 * gap - spread, 100 * gap + spread], abs=0.6)
    assert (paired.protocol["paired"], paired.group, paired.interval) == (True, "object", "group bootstrap")

    write(tmp_path, RAND, rand, [f"q{number}" for number in range(400)])
    (unpaired,) = combine(tmp_path, results)
    assert unpaired.bg_gap == pytest.approx(100 * gap) and unpaired.protocol["paired"] is False
    # Newcombe's interval of a difference of independent shares (Statistics in Medicine 17, 1998, method 10).
    (l1, u1), (l2, u2) = accuracy_interval(same), accuracy_interval(rand)
    low = gap - np.hypot(same.mean() - l1, u2 - rand.mean())
    high = gap + np.hypot(u1 - same.mean(), rand.mean() - l2)
    assert unpaired.bg_gap_ci95 == pytest.approx([100 * low, 100 * high])
    assert np.diff(unpaired.bg_gap_ci95) > 1.5 * np.diff(paired.bg_gap_ci95)


def test_a_change_of_the_gap(tmp_path):
    photos = [f"p{number}" for number in range(400)]
    before = {SAME: hits(0.8), RAND: hits(0.6, seed=1)}
    after = {SAME: before[SAME], RAND: before[RAND] | hits(0.25, seed=2)}
    for folder, each in (("before", before), ("after", after)):
        for name, right in each.items():
            write(tmp_path / folder, name, right, photos)
    (change,) = compare_combined(tmp_path / "before", tmp_path / "after", [SAME, RAND, "imagenet-val"])
    gained = after[RAND].mean() - before[RAND].mean()
    assert (change.dataset, change.figure, change.n, change.classes) == ("imagenet-9", "bg_gap", 800, "all")
    assert change.before == pytest.approx(20) and change.difference == pytest.approx(-100 * gained)
    assert change.after == pytest.approx(20 - 100 * gained) and change.significant
    spread = 100 * 1.96 * np.sqrt(gained * (1 - gained)) / 20
    assert np.diff(change.interval95) == pytest.approx(2 * spread, abs=0.8)
    assert compare_combined(tmp_path / "before", tmp_path / "after", [SAME]) == []


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
def test_a_star_takes_six_photographs_that_changed(tmp_path, count, significant):
    changes, photos = np.arange(20) < count, [f"p{number}" for number in range(20)]
    for folder, same in (("before", np.zeros(20, bool)), ("after", changes)):
        write(tmp_path / folder, SAME, same, photos)
        write(tmp_path / folder, RAND, ~same, photos)  # the same photographs change: twice as many images
    (change,) = compare_combined(tmp_path / "before", tmp_path / "after", [SAME, RAND])
    assert change.interval95[0] > 0 and change.significant == significant


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
def test_a_star_of_the_spurious_score_takes_six_classes_that_changed(tmp_path, count, significant):
    names = np.repeat([f"n{number:08d}" for number in range(20)], 3)
    changes = np.arange(60) < 3 * count
    for folder, shown in (("before", np.full(60, 0.4)), ("after", np.where(changes, 0.6, 0.4))):
        for dataset, probability in (("spurious-imagenet", 0.5), ("imagenet-val", shown)):
            ids = [f"{number}" for number in range(60)]
            frame = pd.DataFrame({"image_id": ids, "class_name": names, "class_probability": probability})
            write_result(tmp_path / folder, BenchmarkResult(dataset, "m", None, 60, {}, "w", "d"), frame)
    (change,) = compare_combined(tmp_path / "before", tmp_path / "after", ["spurious-imagenet", "imagenet-val"])
    assert change.interval95[0] > 0 and change.significant == significant


def test_alexnet_itself_has_a_mean_corruption_error_of_100(tmp_path):
    results = []
    photos = [f"p{number % 1000}" for number in range(5000)]
    for name, error in ALEXNET_ERRORS.items():
        right = np.arange(5000) >= round(5000 * error)
        results.append(write(tmp_path, f"imagenet-c-{name}", right, photos))
    (combined,) = combine(tmp_path, results)
    assert combined.mean_corruption_error == pytest.approx(100, abs=0.02)
    assert combined.mean_top1 == pytest.approx(100 - 100 * np.mean(list(ALEXNET_ERRORS.values())), abs=0.02)
    low, high = combined.mean_corruption_error_ci95
    assert low < 100 < high < low + 10


def test_a_change_of_the_spurious_score_is_resampled_by_class(tmp_path):
    rng, names = np.random.default_rng(0), [f"n{number:08d}" for number in range(20)]
    shift = {"before": 0.5, "after": 1.0}
    noise = {name: rng.normal(size=40) for name in names}
    for folder, gain in shift.items():
        for dataset, first, up in (("spurious-imagenet", 0, 0.0), ("imagenet-val", 20, gain)):
            frame = pd.DataFrame(
                {
                    "image_id": [f"{name}/{number}" for name in names for number in range(20)],
                    "class_name": np.repeat(names, 20),
                    "class_probability": np.concatenate([noise[name][first : first + 20] + up for name in names]),
                }
            )
            write_result(tmp_path / folder, BenchmarkResult(dataset, "m", None, 400, {}, "w", "d"), frame)
    (change,) = compare_combined(tmp_path / "before", tmp_path / "after", ["spurious-imagenet", "imagenet-val"])
    means = {}
    for folder, gain in shift.items():
        scores = []
        for name in names:
            absent, shown = noise[name][:20], noise[name][20:] + gain
            precisions = [(shown >= t).sum() / ((shown >= t).sum() + (absent >= t).sum()) for t in shown]
            scores.append(np.mean(precisions))
        means[folder] = np.array(scores)
    assert change.before == pytest.approx(100 * means["before"].mean())
    assert change.after == pytest.approx(100 * means["after"].mean())
    gains = 100 * (means["after"] - means["before"])
    spread = 1.96 * gains.std() / np.sqrt(20)
    assert change.interval95 == pytest.approx([gains.mean() - spread, gains.mean() + spread], abs=0.4)
    assert change.significant and (change.dataset, change.n) == ("spurious-score", 800)
