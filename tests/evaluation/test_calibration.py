"""The calibration error against closed forms."""

import numpy as np
import pytest

from hf_robustvit.evaluation.calibration import calibrate


def test_always_sure_and_half_right():
    found = calibrate(np.ones(10), np.arange(10) % 2 == 0)
    assert found.error == pytest.approx(0.5)
    assert found.counts.tolist() == [0] * 14 + [10]
    assert found.confidence[-1] == 1 and found.accuracy[-1] == 0.5 and np.isnan(found.accuracy[:-1]).all()


def test_right_as_often_as_it_says():
    confidence = np.repeat([0.25, 0.75], 100)
    correct = np.concatenate([np.arange(100) < 25, np.arange(100) < 75])
    assert calibrate(confidence, correct).error == pytest.approx(0)


def test_bins_are_weighted_by_their_images_and_hold_their_upper_edge():
    # Two bins: 0.5 belongs to the lower one.
    found = calibrate(np.array([0.5, 0.3, 0.9, 0.7]), np.array([True, True, True, False]), num_bins=2)
    assert found.counts.tolist() == [2, 2]
    assert found.error == pytest.approx(0.5 * (1 - 0.4) + 0.5 * (0.8 - 0.5))


def test_errors_within_a_bin_cancel_but_not_between_bins():
    # 0.2 wrong by +0.8, 0.8 wrong by -0.8: each in its own bin.
    assert calibrate(np.array([0.2, 0.8]), np.array([True, False])).error == pytest.approx(0.8)
    assert calibrate(np.array([0.2, 0.8]), np.array([True, False]), num_bins=1).error == pytest.approx(0)
