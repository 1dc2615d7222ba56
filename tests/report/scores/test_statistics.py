"""Means, deviations, intervals, ranks and verdicts against scipy, numpy and cases known by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mimbench.report.scores.statistics import (
    Summary,
    best_and_next,
    paired_difference,
    paired_p_value,
    reject_by_holm,
    summarise,
    t_interval,
)


@pytest.mark.parametrize("trial", range(20))
def test_mean_deviation_and_t_interval_are_scipys(trial):
    rng = np.random.default_rng(trial)
    values = rng.normal(rng.uniform(-50, 50), rng.uniform(0.1, 9), rng.integers(2, 12))
    summary = summarise(list(values))
    assert (summary.n, summary.mean) == (len(values), pytest.approx(values.mean()))
    assert summary.sd == pytest.approx(stats.tstd(values))
    assert summary.se == pytest.approx(stats.sem(values))
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert (summary.interval.low, summary.interval.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread():
    assert summarise([7.0]) == Summary(1, 7.0, None, None)
    assert summarise([7.0]).se is None
    assert t_interval([7.0]) is None
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_differences_are_paired_by_seed():
    ours, base = {0: 51.0, 1: 62.0, 2: 70.0, 7: 1.0}, {2: 68.0, 1: 60.0, 0: 50.0, 9: 5.0}
    difference = paired_difference(ours, base)
    assert (difference.n, difference.mean) == (3, pytest.approx(5 / 3))
    assert difference.sd == pytest.approx(np.std([1, 2, 2], ddof=1))
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    single = paired_difference({0: 3.0}, {0: 1.0})
    assert (single.n, single.mean, single.interval) == (1, 2.0, None)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 10, 20])
def test_intervals_of_means_and_of_paired_differences_cover_the_truth_in_95_of_100_cases(seeds):
    rng = np.random.default_rng(seeds)
    shared, ours, theirs = rng.normal(size=(3, 4000, seeds))
    baseline, method = 50 + 3 * shared + theirs, 52 + 3 * shared + ours
    of_means = [summarise(list(values)).interval for values in method]
    of_differences = [
        paired_difference(dict(enumerate(one)), dict(enumerate(other))).interval
        for one, other in zip(method, baseline, strict=True)
    ]
    for intervals, truth in ((of_means, 52), (of_differences, 2)):
        coverage = np.mean([interval.low <= truth <= interval.high for interval in intervals])
        assert coverage == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("seeds", [2, 4, 5, 9, 20])
def test_the_paired_interval_is_that_of_scipys_paired_t_test(seeds):
    one, other = np.random.default_rng(seeds).normal(size=(2, seeds))
    interval = paired_difference(dict(enumerate(one)), dict(enumerate(other))).interval
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def seeds(*values):
    return dict(enumerate(values))


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_the_paired_p_value_is_scipys(count):
    one, other = np.random.default_rng(count).normal(size=(2, count))
    assert paired_p_value(seeds(*one), seeds(*other)) == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_p_values_without_a_spread_or_a_shared_seed():
    assert paired_p_value(seeds(1, 2), seeds(1, 2)) == 1
    assert paired_p_value(seeds(1, 2, 3), seeds(2, 3, 4)) == 0
    assert paired_p_value(seeds(1, 2), seeds(2, 3)) is None
    assert paired_p_value({0: 1.0, 1: 2.0}, {1: 5.0, 2: 9.0}) is None
    assert paired_p_value({0: 1.0}, {0: 5.0}) is None


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),  # the example of many textbooks
        ([0.04], [True]),
        ([0.04, 0.04], [False, False]),  # 0.04 > 0.05 / 2
        ([0.02, 0.04], [True, True]),
        ([], []),
    ],
)
def test_holms_correction_by_known_cases(p_values, rejected):
    assert reject_by_holm(p_values) == rejected


def test_a_false_difference_is_as_rare_as_it_claims():
    """Six methods that are equal, five seeds: how often the best mean is called better than at least one other."""
    rng = np.random.default_rng(0)
    false = 0
    for values in rng.normal(size=(400, 6, 5)):
        verdict = best_and_next([seeds(*map(float, row)) for row in values])
        false += len(verdict.similar) < 5
    assert false / 400 < 0.15  # choosing the best of six first costs more than 0.05, and far less than no correction


@pytest.mark.parametrize(
    ("scores", "higher", "best", "second", "similar", "tested"),
    [
        ([seeds(1, 1.1, 1), seeds(9, 9.1, 9), seeds(5, 5.1, 5)], True, (1,), (2,), (), 2),
        ([seeds(1, 1.1, 1), seeds(9, 9.1, 9), seeds(5, 5.1, 5)], False, (0,), (2,), (), 2),
        ([seeds(9, 5, 7), seeds(6, 8, 4), seeds(1, 1, 1.1)], True, (0,), (1,), (1, 2), 2),
        ([seeds(9, 5, 7), seeds(8, 4, 6)], True, (0,), (1,), (), 1),  # they spread, and differ by 1 in each seed
        ([seeds(9), seeds(7)], True, (0,), (1,), (), 0),  # one seed: nothing to test
        ([seeds(9, 9.1), None, seeds(7)], True, (0,), (2,), (), 0),
        ([seeds(9, 9, 9), seeds(9, 9, 9), seeds(7, 7, 7)], True, (0, 1), (), (), 1),
        (
            [seeds(9, 9), seeds(7, 7)],
            True,
            (0,),
            (1,),
            (),
            0,
        ),  # one difference twice: no spread
        # Better on the shared seeds, worse on all: never shown to be worse.
        ([seeds(80, 80.1, 80.2, 95, 95, 95), seeds(81, 81.12, 81.19)], True, (0,), (1,), (1,), 1),
        ([seeds(0, 0), seeds(0, 0)], True, (), (), (), 0),  # all the same: nothing is best
        ([seeds(9, 9), None], True, (), (), (), 0),
        ([None, None], True, (), (), (), 0),
    ],
)
def test_the_best_the_next_and_all_that_are_not_distinguishable(scores, higher, best, second, similar, tested):
    verdict = best_and_next(scores, higher)
    assert (verdict.best, verdict.second, verdict.similar, verdict.tested) == (best, second, similar, tested)


@pytest.mark.parametrize("trial", range(20))
def test_the_verdict_is_holms_over_paired_t_tests(trial):
    rng = np.random.default_rng(trial)
    values = rng.normal(50 + rng.uniform(0, 4, (5, 1)), 1, (5, 5))
    verdict = best_and_next([seeds(*row) for row in values])
    best = int(values.mean(1).argmax())
    others = [index for index in range(5) if index != best]
    p_values = [stats.ttest_rel(values[best], values[index]).pvalue for index in others]
    adjusted = np.maximum.accumulate(np.sort(p_values) * np.arange(4, 0, -1))
    similar = {others[place] for place, p in zip(np.argsort(p_values), adjusted, strict=True) if p > 0.05}
    assert (verdict.best, set(verdict.similar), verdict.tested) == ((best,), similar, 4)


def test_deviation_and_error_are_not_confused():
    summary = summarise([1.0, 3.0, 5.0, 7.0])
    assert summary.sd == pytest.approx(2.581988897)
    assert summary.se == pytest.approx(summary.sd / math.sqrt(4))
