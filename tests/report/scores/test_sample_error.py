"""Intervals over seeds and test images: against formulas, a bootstrap, and simulated data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mimbench.report.scores.sample_error import IMAGES, SEEDS, mcnemar, mean_interval, resampled_interval
from mimbench.report.scores.statistics import t_interval


def crossed(rng, seeds: int, images: int, of_seed: float, of_image: float, of_both: float) -> dict[int, np.ndarray]:
    """Values of mean 0 with these standard deviations."""
    y = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_image, images) + rng.normal(0, of_both, (seeds, images))
    return dict(enumerate(y))


def test_over_seeds_it_is_student_s_interval_of_their_means():
    values = crossed(np.random.default_rng(0), 4, 50, 1, 1, 1)
    result, expected = mean_interval(values, [SEEDS]), t_interval([float(each.mean()) for each in values.values()])
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))


def test_over_images_of_one_seed_it_is_the_interval_of_a_proportion():
    hits = np.arange(400) < 300
    result = mean_interval({0: 100.0 * hits}, [IMAGES])
    half = stats.t.ppf(0.975, 399) * 100 * math.sqrt(0.75 * 0.25 / 399)
    assert (result.low, result.high) == pytest.approx((75 - half, 75 + half))


def test_over_images_it_is_what_a_bootstrap_over_images_gives():
    rng = np.random.default_rng(1)
    values = crossed(rng, 3, 400, 5, 1, 2)
    result = mean_interval(values, [IMAGES])
    of_images = np.stack(list(values.values())).mean(0)
    drawn = of_images[rng.integers(0, 400, (4000, 400))].mean(1)
    assert (result.high - result.low) / 2 == pytest.approx(1.96 * drawn.std(), rel=0.05)


@pytest.mark.parametrize(
    ("of_seed", "of_image", "of_both"), [(0.0, 1.0, 0.0), (0.2, 1.0, 1.0), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)]
)
def test_over_both_it_covers_the_mean_as_often_as_it_says(of_seed, of_image, of_both):
    rng, covered = np.random.default_rng(2), 0
    for _ in range(600):
        result = mean_interval(crossed(rng, 3, 60, of_seed, of_image, of_both), [SEEDS, IMAGES])
        covered += result.low <= 0 <= result.high
    assert covered / 600 > 0.935  # a standard error and a half below 95 %


def test_covering_seeds_alone_or_images_alone_is_too_narrow_where_both_vary():
    rng, covered = np.random.default_rng(3), {(SEEDS,): 0, (IMAGES,): 0}
    for _ in range(300):
        values = crossed(rng, 20, 40, 1.0, 1.5, 0.5)
        for covers in covered:
            result = mean_interval(values, covers)
            covered[covers] += result.low <= 0 <= result.high
    assert all(count / 300 < 0.9 for count in covered.values())


def test_pairs_are_narrower_than_unpaired_methods():
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 3, 500)
    one, two = hard + rng.normal(0, 0.5, 500), hard + rng.normal(0.2, 0.5, 500)
    paired = mean_interval({0: two - one}, [IMAGES])
    unpaired = mean_interval({0: two}, [IMAGES])
    assert paired.low > 0
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_of_two_groups_it_is_welch_s_interval():
    rng = np.random.default_rng(6)
    few, many = rng.normal(0, 5, 4), rng.normal(0, 1, 300)
    result = mean_interval({0: np.concatenate((few, many))}, [IMAGES], np.repeat([0, 1], [4, 300]))
    welch = stats.ttest_ind(few, -many, equal_var=False).confidence_interval(0.95)  # of the sum of both means
    assert (2 * result.low, 2 * result.high) == pytest.approx((welch.low, welch.high))


def test_the_mean_of_unequal_groups_is_covered_as_often_as_it_says():
    rng, covered, groups = np.random.default_rng(7), 0, np.repeat([0, 1], [5, 200])
    for _ in range(1000):
        values = np.concatenate((rng.normal(0, 5, 5), rng.normal(0, 1, 200)))
        result = mean_interval({0: values}, [IMAGES], groups)
        covered += result.low <= 0 <= result.high
    assert covered / 1000 > 0.93


def test_too_few_have_no_interval():
    assert resampled_interval({0: 5.0}, np.full(200, 5.0), 1, [IMAGES]) is None
    assert resampled_interval({0: 5.0}, np.full(200, 5.0), 2, [SEEDS, IMAGES]) is None
    assert mean_interval({0: np.ones(5)}, [SEEDS]) is None
    assert mean_interval({0: np.ones(5)}, [SEEDS, IMAGES]) is None
    assert mean_interval({0: np.ones(1)}, [IMAGES]) is None
    equal = mean_interval({0: np.ones(5), 1: np.ones(5)}, [SEEDS, IMAGES])
    assert (equal.low, equal.high) == (1, 1)


def test_mcnemar_is_exact():
    # The table [[101, 121], [59, 33]] of the documentation of statsmodels.stats.contingency_tables.mcnemar.
    first = np.repeat([True, True, False, False], [101, 121, 59, 33])
    second = np.repeat([True, False, True, False], [101, 121, 59, 33])
    result = mcnemar(first, second)
    assert (result.first_only, result.second_only) == (121, 59)
    assert result.p_value == pytest.approx(4.434448713e-06)
    assert mcnemar(first, first).p_value == 1
