"""Calibration, worst classes and relative foreground sensitivity by plain loops; their intervals against the truth."""

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.calibration import calibrate
from hf_robustvit.evaluation.comparison import compare, pair_predictions
from hf_robustvit.evaluation.statistics import corrected_bootstrap_interval
from hf_robustvit.evaluation.summaries import SUMMARIES, summary_figures


def predictions(correct, confidence=0.5, classes="c", **columns):
    return pd.DataFrame(
        {
            "image_id": [f"{number:04d}" for number in range(len(correct))],
            "class_name": classes,
            "label": 3,
            "top5_indices": [[3, 0] if hit else [0, 3] for hit in correct],
            "top5_probabilities": [[each, 0.0] for each in np.broadcast_to(confidence, len(correct))],
        }
        | columns
    )


def value(name, frame):
    return SUMMARIES[name](frame)(np.ones(len(frame)))


def test_the_calibration_error_is_the_reliability_diagrams():
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(400), [1.0, 1 / 15, 1 + 1e-7])
    correct = rng.random(403) < confidence**2
    wanted = calibrate(np.minimum(confidence, 1), correct).error
    frame = predictions(correct, confidence)
    assert value("ece", frame) == pytest.approx(wanted) and summary_figures(frame)["ece"] == pytest.approx(
        100 * wanted
    )
    # A weight says how often an image is there.
    weights = rng.integers(0, 4, size=403)
    repeated = np.repeat(np.arange(403), weights)
    wanted = calibrate(np.minimum(confidence, 1)[repeated], correct[repeated]).error
    assert SUMMARIES["ece"](frame)(weights) == pytest.approx(wanted)


def test_the_worst_tenth_of_the_classes_of_ten_images():
    classes = np.concatenate([np.repeat([f"c{number:02d}" for number in range(20)], 10), ["rare"] * 9])
    correct = np.concatenate([np.arange(10) < 1 + number // 2 for number in range(20)] + [np.zeros(9, bool)])
    frame = predictions(correct, classes=classes)
    assert value("worst_classes_top1", frame) == pytest.approx(0.1), "c00 and c01, 1 of 10 each; rare has too few"
    assert summary_figures(frame)["worst_classes_top1_ci95"][1] < 100
    few = predictions(correct[:20], classes=classes[:20])
    assert value("worst_classes_top1", few) == pytest.approx(0.1), "one class at least"
    assert SUMMARIES["worst_classes_top1"](few[:15]) is None, "one class alone is not the worst of any"
    assert "worst_classes_top1" not in summary_figures(few[:15])


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
def test_a_star_takes_six_images_that_changed_in_the_worst_classes_of_either_model(count, significant):
    classes, hits = np.repeat([f"c{number:02d}" for number in range(20)], 30), np.tile(np.arange(30) < 24, 20)
    hits[:60] = np.tile(np.arange(30) < 12, 2)  # c00 and c01 are the worst
    after = hits.copy()
    after[[0, 1, 2, 30, 31, 32][:count]] = False
    after[300:330] = True  # another class: thirty images that say nothing of the worst ones
    before, after = predictions(hits, classes=classes), predictions(after, classes=classes)
    by_figure = {item.figure: item for item in compare("set", *pair_predictions("set", before, after))}
    worst = by_figure["worst_classes_top1"]
    assert worst.difference == pytest.approx(-100 * count / 60) and worst.interval95[1] < 0
    assert worst.significant == significant


def changed_rows(name, before, after):
    return np.flatnonzero(SUMMARIES[name](after).changed_from(SUMMARIES[name](before))).tolist()


def test_images_that_changed_in_a_figure():
    classes = np.repeat(["a", "b", "c"], 10)
    hits, others = np.arange(30) % 10 < np.repeat([2, 5, 8], 10), np.arange(30) % 10 < np.repeat([6, 5, 8], 10)
    others[29] = True
    before, after = predictions(hits, classes=classes), predictions(others, classes=classes)
    # a was the worst and b is now: of a four changed, of b none, and c, of which one did, does not count.
    assert changed_rows("worst_classes_top1", before, after) == [2, 3, 4, 5]
    assert changed_rows("ece", before, after) == [2, 3, 4, 5, 29]
    surer = predictions(hits, confidence=np.where(np.arange(30) < 2, 0.6, 0.5), classes=classes)
    assert changed_rows("ece", before, surer) == [0, 1] and changed_rows("worst_classes_top1", before, surer) == []
    noise = before.assign(foreground_noise=0.5, background_noise=0.5)
    other = noise.assign(background_noise=np.where(np.arange(30) == 3, 1, 0.5))
    assert changed_rows("foreground_sensitivity", noise, other) == [3]


@pytest.mark.parametrize(
    ("foreground", "background", "wanted"),
    [(0.2, 0.6, 0.4 / (2 * 0.4)), (0.9, 0.7, -0.2 / (2 * 0.2)), (0.0, 0.5, 1), (1, 0.5, -1), (1, 1, 0), (0, 0, 0)],
)
def test_relative_foreground_sensitivity_in_closed_form(foreground, background, wanted):
    shares = {"foreground_noise": [foreground] * 8, "background_noise": [background] * 8}
    frame = predictions([True] * 8, **shares)
    assert value("foreground_sensitivity", frame) == pytest.approx(wanted)
    figures = summary_figures(frame)
    assert figures["foreground_sensitivity"] == pytest.approx(100 * wanted)
    assert figures["foreground_sensitivity_ci95"] is None, "no two images differ"


def test_figures_without_their_columns_are_left_out():
    assert summary_figures(pd.DataFrame({"image_id": ["a"], "saco": [0.5]})) == {}
    assert set(summary_figures(predictions([True] * 4))) == {"ece", "ece_ci95"}


@pytest.mark.parametrize("figure", ["ece", "worst_classes_top1"])
def test_the_interval_holds_the_truth_where_percentiles_do_not(figure):
    """Predictions that are right as often as they say, and classes that are all the same: the figures are noise."""
    covered, by_percentiles = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.4, 1, size=300)
        correct, classes = rng.random(300) < confidence, np.repeat([f"c{number}" for number in range(15)], 20)
        summary = SUMMARIES[figure](predictions(correct, confidence, classes))
        truth = 0 if figure == "ece" else 0.7
        low, high = corrected_bootstrap_interval(summary, 300, resamples=200)
        covered += max(low, 0) <= truth <= high
        draws = rng.multinomial(300, np.full(300, 1 / 300), size=200)
        low, high = np.quantile([summary(draw) for draw in draws], [0.025, 0.975])
        by_percentiles += low <= truth <= high
    assert by_percentiles <= 4 and covered >= 34


def test_whole_objects_are_resampled():
    rng = np.random.default_rng(0)
    objects = np.repeat(np.arange(30), 10)
    correct, confidence = np.repeat(rng.random(30) < 0.5, 10), np.full(300, 0.8)
    by_image, by_object = (
        summary_figures(predictions(correct, confidence, **columns))["ece_ci95"]
        for columns in ({}, {"object": objects})
    )
    assert np.diff(by_object) / np.diff(by_image) == pytest.approx(10**0.5, rel=0.25)


def test_both_models_are_compared_on_the_same_draws():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=300)
    correct = rng.random(300) < 0.5
    noise = {"foreground_noise": rng.random(300), "background_noise": rng.random(300)}
    before = predictions(correct, confidence, **noise)
    after = predictions(correct, confidence - 0.1, **noise)
    by_figure = {item.figure: item for item in compare("set", *pair_predictions("set", before, after))}
    ece, sensitivity = by_figure["ece"], by_figure["foreground_sensitivity"]
    assert ece.before == pytest.approx(100 * value("ece", before)) and ece.after == pytest.approx(
        100 * value("ece", after)
    )
    assert ece.difference == pytest.approx(ece.after - ece.before) and ece.interval == "bootstrap"
    assert ece.interval95[0] < ece.difference < ece.interval95[1] < 0 and ece.significant and ece.p is None
    assert sensitivity.interval95 == (0, 0) and not sensitivity.significant
    assert "foreground_sensitivity" not in {
        item.figure for item in compare("set", *pair_predictions("set", before.drop(columns=list(noise)), after))
    }
