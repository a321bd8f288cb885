import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hf_robustvit.evaluation.statistics import (
    accuracy_interval,
    bootstrap_interval,
    difference_interval,
    group_bootstrap_interval,
    holm,
    mcnemar_p,
    object_groups,
    sign_flip_p,
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


def test_objects_are_groups_only_where_some_repeat():
    frame = pd.DataFrame({"object": ["b", "a", "b", None, None]})
    assert object_groups(frame).tolist() == [0, 1, 0, 2, 3], "of an unknown object each image is a group"
    assert object_groups(frame[1:]) is None, "each is shown once"
    assert object_groups(frame[::2][:2]) is None, "one object"
    assert object_groups(frame.drop(columns="object")) is None


def drawn(rng, count, shares, concentration, size=10):
    """Groups of images, and each image's kind (0, 1, ...): the groups have shares of their own around `shares`."""
    own = rng.dirichlet(np.asarray(shares) * concentration, size=count)
    kinds = (rng.random((count, size, 1)) > own.cumsum(axis=1)[:, None, :-1]).sum(axis=2)
    return np.repeat(np.arange(count), size), kinds.ravel()


@pytest.mark.parametrize("count", [10, 30])
def test_the_group_bootstrap_covers_the_true_accuracy_and_the_interval_by_image_does_not(count):
    rng, covered = np.random.default_rng(count), []
    for _ in range(400):
        groups, kinds = drawn(rng, count, (0.4, 0.6), concentration=1)
        intervals = accuracy_interval(kinds == 1, groups), accuracy_interval(kinds == 1)
        covered.append([low <= 0.6 <= high for low, high in intervals])
    by_group, by_image = np.mean(covered, axis=0)
    assert 0.925 <= by_group <= 0.975 and by_image < 0.7


@pytest.mark.parametrize("count", [30])
def test_the_group_bootstrap_covers_the_true_difference_and_the_interval_by_image_does_not(count):
    rng, covered = np.random.default_rng(count), []
    for _ in range(400):
        groups, kinds = drawn(rng, count, (0.55, 0.25, 0.2), concentration=1)
        pair = kinds == 2, kinds == 1
        covered.append(
            [low <= 0.05 <= high for low, high in (difference_interval(*pair, groups), difference_interval(*pair))]
        )
    by_group, by_image = np.mean(covered, axis=0)
    assert 0.925 <= by_group <= 0.975 and by_image < 0.75


@pytest.mark.parametrize("count", [12, 40])
def test_sign_flips_of_groups_raise_few_false_alarms_and_mcnemar_many(count):
    rng, p_values = np.random.default_rng(count), []
    for _ in range(200):
        groups, kinds = drawn(rng, count, (0.6, 0.2, 0.2), concentration=1)
        kept = rng.random(len(groups)) < 0.3 + 0.7 * (groups % 2)  # groups of unequal size
        pair = (kinds == 2)[kept], (kinds == 1)[kept]
        p_values.append([sign_flip_p(*pair, groups[kept]), mcnemar_p(*pair)])
    by_group, by_image = np.mean(np.array(p_values) <= 0.05, axis=0)
    assert by_group <= 0.065 and by_image > 0.2


def test_groups_of_one_image_are_images():
    rng = np.random.default_rng(0)
    correct = rng.random(500) < 0.7
    assert accuracy_interval(correct, rng.permutation(500)) == pytest.approx(accuracy_interval(correct), abs=0.004)
    before, after = outcome_pair(300, 60, 40, 100)
    groups = np.arange(500)
    assert difference_interval(before, after, groups) == pytest.approx(difference_interval(before, after), abs=0.004)
    assert sign_flip_p(before, after, groups) == pytest.approx(mcnemar_p(before, after), abs=0.02)
    few = outcome_pair(50, 1, 9, 40)  # ten images changed: both tests are exact
    assert sign_flip_p(*few, np.arange(100)) == pytest.approx(mcnemar_p(*few)) == pytest.approx(22 / 1024)


def test_groups_whose_images_agree_are_single_images():
    before, after = outcome_pair(30, 9, 3, 18)
    repeated = np.repeat(before, 7), np.repeat(after, 7)
    groups = np.repeat(np.arange(60), 7)
    assert difference_interval(*repeated, groups) == pytest.approx(difference_interval(before, after), abs=0.02)
    low, high = difference_interval(*repeated)
    assert high - low < 0.5 * np.diff(difference_interval(before, after))[0], "images by themselves tell too much"
    assert sign_flip_p(*repeated, groups) == sign_flip_p(before, after, np.arange(60))
    # Nothing differs between the groups: they count as one image each.
    nothing = np.zeros(420, bool)
    assert accuracy_interval(nothing, groups) == accuracy_interval(nothing[:60])
    assert difference_interval(nothing, nothing, groups) == difference_interval(nothing[:60], nothing[:60])
    assert difference_interval(nothing, ~nothing, groups) == difference_interval(nothing[:60], ~nothing[:60])
    assert sign_flip_p(nothing, nothing, groups) == 1
    assert sign_flip_p(nothing, groups == 3, groups) == 1, "one group alone"
    assert sign_flip_p(nothing, groups < 2, groups) == 0.5


def test_sign_flips_as_enumerated_by_hand():
    rng = np.random.default_rng(2)
    groups = rng.permutation(np.repeat(np.arange(9), rng.integers(1, 8, size=9)))
    before, after = rng.random((2, len(groups))) < [[0.3], [0.6]]
    sums = [
        sum(int(a) - int(b) for a, b, g in zip(after, before, groups, strict=True) if g == each) for each in range(9)
    ]
    flipped = [
        abs(sum(s * d for s, d in zip(signs, sums, strict=True))) for signs in itertools.product((-1, 1), repeat=9)
    ]
    assert 0.001 < sign_flip_p(before, after, groups) < 1
    assert sign_flip_p(before, after, groups) == pytest.approx(np.mean(np.array(flipped) >= abs(sum(sums))))


def test_the_group_bootstrap_resamples_any_figure_of_sums_and_always_alike():
    rng = np.random.default_rng(4)
    groups = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 12, size=40)))
    values = rng.random((len(groups), 2)) + rng.random(40)[groups, None]
    ratio = lambda rows: rows[:, 0].sum() / rows[:, 1].sum()  # noqa: E731
    rows = [np.flatnonzero(groups == group) for group in range(40)]
    resampled = [ratio(values[np.concatenate([rows[g] for g in rng.integers(40, size=40)])]) for _ in range(4000)]
    tail = stats.norm.cdf(np.sqrt(40 / 39) * stats.t.ppf(0.025, 39))
    interval = group_bootstrap_interval(ratio, values, groups)
    assert interval == pytest.approx(np.quantile(resampled, [tail, 1 - tail]), abs=0.01)
    assert interval == bootstrap_interval(ratio, values, groups) == group_bootstrap_interval(ratio, values, 7 * groups)
    assert interval != group_bootstrap_interval(ratio, values, groups, seed=1)
    half = 0.5 * np.diff(bootstrap_interval(np.mean, values[:, 0]))[0]
    assert np.diff(group_bootstrap_interval(np.mean, values[:, 0], groups))[0] > 3 * half, "groups that differ"
