import numpy as np
import pytest
from scipy import stats

from hf_robustvit.evaluation.statistics import (
    accuracy_interval,
    bootstrap_interval,
    difference_interval,
    holm,
    mcnemar_p,
)


def outcome_pair(both: int, better: int, worse: int, neither: int):
    """Whether each image was right before and after."""
    before = np.repeat([True, False, True, False], [both, better, worse, neither])
    after = np.repeat([True, True, False, False], [both, better, worse, neither])
    return before, after


def test_wilsons_closed_forms():
    n, square = 20, 1.959964**2
    assert accuracy_interval(np.zeros(n, bool)) == pytest.approx((0, square / (n + square)), abs=1e-6)
    assert accuracy_interval(np.ones(n, bool)) == pytest.approx((n / (n + square), 1), abs=1e-6)
    # The textbook's example: 5 of 10.
    assert accuracy_interval(np.arange(10) < 5) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_wilsons_bounds_are_where_the_score_test_begins_to_reject():
    hits, n = 7, 30
    for bound in accuracy_interval(np.arange(n) < hits):
        assert (hits / n - bound) ** 2 == pytest.approx(1.959964**2 * bound * (1 - bound) / n, rel=1e-5)


def test_mcnemar_is_the_sign_test_on_the_images_that_changed():
    # 1 better, 9 worse: 2 * (C(10,0) + C(10,1)) / 2^10
    assert mcnemar_p(*outcome_pair(50, 1, 9, 40)) == pytest.approx(22 / 1024)
    assert mcnemar_p(*outcome_pair(0, 9, 1, 0)) == pytest.approx(22 / 1024)
    assert mcnemar_p(*outcome_pair(3, 4, 4, 5)) == 1
    assert mcnemar_p(*outcome_pair(10, 0, 0, 10)) == 1


def test_holm_by_hand():
    # Sorted: 0.005*4, 0.01*3, 0.03*2 and 0.04*1, which must not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


def test_the_paired_interval_is_that_of_resampled_images():
    before, after = outcome_pair(40, 25, 10, 25)
    rng = np.random.default_rng(5)
    change = after.astype(int) - before.astype(int)
    resampled = [change[rng.integers(100, size=100)].mean() for _ in range(10_000)]
    expected = np.quantile(resampled, [0.025, 0.975])
    assert difference_interval(before, after) == pytest.approx(expected, abs=0.011)  # an image is 0.01
    assert difference_interval(before, after) == difference_interval(before, after)


@pytest.mark.parametrize("n", [20, 100, 2000])
@pytest.mark.parametrize("better, worse", [(0.15, 0.1), (0.4, 0.05), (0.05, 0.05)])
def test_the_paired_interval_covers_the_true_difference(n, better, worse):
    shares = [better, worse, 1 - better - worse]
    draws, counts = np.unique(np.random.default_rng(0).multinomial(n, shares, size=2000), axis=0, return_counts=True)
    intervals = [difference_interval(*outcome_pair(0, *kinds)) for kinds in draws]
    covered = [low <= better - worse <= high for low, high in intervals]
    assert 0.94 <= np.average(covered, weights=counts) <= 0.99


def test_the_paired_interval_as_published():
    # Fagerland, Lydersen and Laake 2014: airway hyper-responsiveness of 21 children before and after a transplant.
    assert difference_interval(*outcome_pair(1, 1, 7, 12)) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_the_paired_interval_where_no_image_got_worse_is_wilsons():
    wilson = stats.binomtest(10, 100).proportion_ci(0.95, method="wilson")
    assert difference_interval(*outcome_pair(50, 10, 0, 40)) == pytest.approx((wilson.low, wilson.high))
    assert difference_interval(*outcome_pair(50, 0, 10, 40)) == pytest.approx((-wilson.high, -wilson.low))


@pytest.mark.parametrize("n", [1, 20, 50_000])
def test_the_paired_interval_has_a_width_where_no_image_changed(n):
    bound = 1.959964**2 / (n + 1.959964**2)
    assert difference_interval(*outcome_pair(n, 0, 0, 0)) == pytest.approx((-bound, bound), rel=1e-5)
    assert difference_interval(*outcome_pair(0, 0, 0, n)) == pytest.approx((-bound, bound), rel=1e-5)


def test_the_paired_interval_is_the_score_test_turned_round():
    for better in range(13):
        for worse in range(13 - better):
            low, high = difference_interval(*outcome_pair(0, better, worse, 12 - better - worse))
            assert -1 <= low <= (better - worse) / 12 <= high <= 1
            rejected = (better - worse) ** 2 > 1.959964**2 * (better + worse)  # McNemar's chi-square
            assert (low > 0 or high < 0) == rejected


def test_pairing_makes_the_interval_narrower_than_two_samples_would():
    low, high = difference_interval(*outcome_pair(70, 6, 0, 24))
    unpaired = 2 * 1.96 * np.sqrt(0.7 * 0.3 / 100 + 0.76 * 0.24 / 100)
    assert low > 0 and high - low < unpaired / 2


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(1).normal(3, 2, size=2000)
    low, high = bootstrap_interval(np.mean, values)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == (
        pytest.approx(values.mean() - half, abs=0.02),
        pytest.approx(values.mean() + half, abs=0.02),
    )
    assert bootstrap_interval(np.mean, values) == (low, high)
    assert bootstrap_interval(np.mean, values, seed=1) != (low, high)
