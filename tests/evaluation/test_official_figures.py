"""Shape bias and figures over groups, from predictions alone, and how they change between two models."""

import numpy as np
import pandas as pd
import pytest

from hf_robustvit.evaluation.comparison import compare, pair_predictions
from hf_robustvit.evaluation.summaries import SUMMARIES, summary_figures


def cue_conflicts(decided: str) -> pd.DataFrame:
    """One image a letter: decided for the shape, the texture, or neither; "b" has a texture of the shape's class."""
    predicted = {"s": "cat", "t": "dog", "n": "car", "b": "cat"}
    return pd.DataFrame(
        {
            "image_id": [f"{number:03d}" for number in range(len(decided))],
            "class_name": "cat",
            "texture": ["cat" if letter == "b" else "dog" for letter in decided],
            "predicted": [predicted[letter] for letter in decided],
            "label": 0,
            "right_indices": [[0]] * len(decided),
            "top5_indices": [[0] if letter in "sb" else [1] for letter in decided],
        }
    )


def grouped(hits: dict[str, tuple[int, int]], weights: dict[str, float]) -> pd.DataFrame:
    """Groups of images, of which the first ones are right: group -> right, all."""
    groups = [name for name, (_, count) in hits.items() for _ in range(count)]
    right = [number < count for count, total in hits.values() for number in range(total)]
    return pd.DataFrame(
        {
            "image_id": [f"{number:04d}" for number in range(len(groups))],
            "class_name": "bird",
            "label": 0,
            "top5_indices": [[0] if hit else [1] for hit in right],
            "group": groups,
            "group_weight": [weights[name] for name in groups],
        }
    )


def test_shape_bias_counts_decisions_for_shape_or_texture_where_they_conflict():
    figures = summary_figures(cue_conflicts("s" * 30 + "t" * 10 + "n" * 50 + "b" * 10))
    assert figures["shape_bias"] == pytest.approx(75)
    low, high = figures["shape_bias_ci95"]
    # About the binomial interval of 30 in 40, by resampling.
    assert (low, high) == pytest.approx((61, 88), abs=3)


def test_without_a_decision_there_is_no_shape_bias():
    assert "shape_bias" not in summary_figures(cue_conflicts("nnbb"))


def test_a_change_of_shape_bias_is_paired():
    before, after = cue_conflicts("s" * 20 + "t" * 60 + "n" * 20), cue_conflicts("s" * 40 + "t" * 40 + "n" * 20)
    by_figure = {item.figure: item for item in compare("cue-conflict", *pair_predictions("c", before, after))}
    change = by_figure["shape_bias"]
    assert (change.before, change.after, change.difference) == (25, 50, 25)
    # Twenty of eighty decisions changed, all in one direction: narrower than two independent halves would be.
    assert (change.n, change.significant, change.test) == (100, True, None)
    assert change.interval95 == pytest.approx((15.6, 35), abs=2)
    assert "worst_group_top1" not in by_figure


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
def test_a_star_takes_six_decisions_that_changed(count, significant):
    before = cue_conflicts("s" * 4 + "t" * 16 + "n" * 20)
    after = cue_conflicts("s" * (4 + count) + "t" * (16 - count) + "b" * 20)  # right now, and no decision
    by_figure = {item.figure: item for item in compare("cue-conflict", *pair_predictions("c", before, after))}
    assert by_figure["shape_bias"].interval95[0] > 0 and by_figure["shape_bias"].significant == significant


@pytest.mark.parametrize("count, significant", [(5, False), (6, True)])
def test_a_star_takes_six_images_that_changed_in_the_worst_group_of_either_model(count, significant):
    weights = {"a": 3.0, "b": 1.0}
    before, after = (
        grouped({"a": (right, 60), "b": (each, 40)}, weights) for right, each in ((40, 4), (45, 4 + count))
    )
    by_figure = {item.figure: item for item in compare("waterbirds", *pair_predictions("w", before, after))}
    worst, adjusted = by_figure["worst_group_top1"], by_figure["adjusted_top1"]
    assert worst.difference == pytest.approx(100 * count / 40) and worst.interval95[0] > 0
    assert worst.significant == significant and adjusted.significant


def test_the_worst_group_and_the_adjusted_average():
    weights = {"a": 3498.0, "b": 184.0, "c": 56.0, "d": 1057.0}
    frame = grouped({"a": (90, 100), "b": (30, 60), "c": (8, 20), "d": (20, 40)}, weights)
    figures = summary_figures(frame)
    assert figures["worst_group_top1"] == pytest.approx(40)
    adjusted = (3498 * 0.9 + 184 * 0.5 + 56 * 0.4 + 1057 * 0.5) / 4795
    assert figures["adjusted_top1"] == pytest.approx(100 * adjusted)
    low, high = figures["worst_group_top1_ci95"]
    # The lowest of several noisy accuracies lies below the lowest true one on average, and the interval allows for it.
    assert low == pytest.approx(21, abs=3) and high == pytest.approx(60, abs=3)


def test_a_resample_that_misses_a_group_leaves_it_out():
    frame = grouped({"a": (1, 2), "b": (1, 1)}, {"a": 3.0, "b": 1.0})
    worst, adjusted = (SUMMARIES[name](frame) for name in ("worst_group_top1", "adjusted_top1"))
    assert worst(np.array([2.0, 0, 0])) == 1
    assert adjusted(np.array([0, 2.0, 0])) == 0
    assert adjusted(np.ones(3)) == pytest.approx((3 * 0.5 + 1) / 4)


def test_changes_of_groups():
    weights = {"a": 3.0, "b": 1.0}
    before, after = (grouped({"a": (80, 100), "b": (right, 100)}, weights) for right in (20, 50))
    by_figure = {item.figure: item for item in compare("waterbirds", *pair_predictions("w", before, after))}
    assert by_figure["worst_group_top1"].difference == pytest.approx(30)
    assert by_figure["adjusted_top1"].difference == pytest.approx(7.5)
    assert by_figure["worst_group_top1"].significant
    assert np.diff(by_figure["worst_group_top1"].interval95) == pytest.approx(18, abs=3)
