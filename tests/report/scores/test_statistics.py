"""Means, deviations, intervals, ranks and verdicts against scipy, numpy and cases known by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mimbench.report.scores.statistics import (
    Interval,
    Summary,
    best_and_next,
    mean_ranks,
    paired_difference,
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


def score(mean, half=None):
    return Summary(3, mean, 1.0, Interval(mean - half, mean + half) if half is not None else None)


@pytest.mark.parametrize(
    ("scores", "higher", "best", "second", "is_clear"),
    [
        ([score(1, 0.1), score(9, 0.1), score(5, 0.1)], True, (1,), (2,), True),
        ([score(1, 0.1), score(9, 0.1), score(5, 0.1)], False, (0,), (2,), True),
        ([score(9, 3), score(8, 1), score(1, 0.1)], True, (0,), (1,), False),
        ([score(9, 1), score(7, 1)], True, (0,), (1,), False),  # they touch
        ([score(9, 0.9), score(7, 0.9)], True, (0,), (1,), True),
        ([score(9), score(7, 0.1)], True, (0,), (1,), False),  # one seed: no interval
        ([score(9, 0.1), None, score(7)], True, (0,), (2,), False),
        ([score(9, 0.1), score(9, 0.1), score(7, 0.1)], True, (0, 1), (), False),
        ([score(9, 0.1), score(7, 0.1), score(7, 3)], True, (0,), (1, 2), False),
        ([score(9, 3), score(7, 0.1), score(5, 2)], True, (0,), (1,), False),
        ([score(9, 0.1), score(7, 0.1), score(5, 5)], True, (0,), (1,), False),  # the third reaches the best
        ([score(1, 0.1), score(3, 0.1), score(5, 5)], False, (0,), (1,), False),
        ([score(9, 0.1), score(7, 0.1), score(5)], True, (0,), (1,), False),
        ([score(0, 0.1), score(0, 0.1)], True, (), (), True),  # all the same: nothing is best
        ([score(0), score(0), None, score(0, 0)], True, (), (), True),
        ([score(9, 0.1), None], True, (), (), True),
        ([None, None], True, (), (), True),
    ],
)
def test_a_best_is_clear_or_has_rivals(scores, higher, best, second, is_clear):
    best_two = best_and_next(scores, higher)
    assert (best_two.best, best_two.second, best_two.is_clear) == (best, second, is_clear)


@pytest.mark.parametrize("trial", range(20))
def test_the_verdict_agrees_with_the_intervals(trial):
    rng = np.random.default_rng(trial)
    scores = [summarise(list(rng.normal(50 + rng.uniform(0, 6), 1, 5))) for _ in range(4)]
    best_two = best_and_next(scores)
    means = [one.mean for one in scores]
    assert best_two.best == (int(np.argmax(means)),)
    assert best_two.second == (int(np.argsort(means)[-2]),)
    low = scores[best_two.best[0]].interval.low
    rivals = {index for index, one in enumerate(scores) if index not in best_two.best and one.interval.high >= low}
    assert set(best_two.rivals) == rivals
    assert best_two.is_clear == (not rivals)


def test_mean_ranks_of_clear_cases():
    clear = {name: {seed: base + seed / 100 for seed in range(5)} for name, base in (("a", 9), ("b", 5), ("c", 1))}
    lower = {
        name: {seed: 10 - value for seed, value in values_by_name.items()} for name, values_by_name in clear.items()
    }
    ranks = mean_ranks({"one": clear, "two": lower}, {"one": True, "two": False})
    assert [(rank.name, rank.mean, rank.tasks) for rank in ranks] == [("a", 1, 2), ("b", 2, 2), ("c", 3, 2)]
    assert all(rank.interval == (rank.mean, rank.mean) for rank in ranks)


def test_mean_ranks_know_what_seeds_leave_open():
    rng = np.random.default_rng(0)
    noisy = {name: {seed: float(rng.normal()) for seed in range(5)} for name in "ab"}
    ranks = mean_ranks({"t": noisy}, {"t": True})
    assert sum(rank.mean for rank in ranks) == 3
    assert [rank.interval for rank in ranks] == [(1, 2), (1, 2)]
    single = {name: {0: values_by_name[0]} for name, values_by_name in noisy.items()}
    assert all(rank.interval is None for rank in mean_ranks({"t": single}, {"t": True}))


def random_scores(rng, contenders, tasks, seeds):
    """Of pretrainings whose seeds move all tasks together: [task][contender][seed]."""
    level, shared = rng.normal(0, 2, contenders), rng.normal(size=(contenders, seeds))
    values = level[:, None, None] + shared[:, None] + 0.3 * rng.normal(size=(contenders, tasks, seeds))
    return {
        f"t{t}": {f"c{c}": dict(enumerate(map(float, values[c, t]))) for c in range(contenders)} for t in range(tasks)
    }


@pytest.mark.parametrize("trial", range(20))
def test_an_interval_of_ranks_is_what_overlapping_intervals_leave_open(trial):
    """Counted by hand: whoever overlaps may come before or behind, in every task at once."""
    rng = np.random.default_rng(trial)
    scores = random_scores(rng, 6, 3, int(rng.integers(2, 7)))
    higher = {task: bool(rng.integers(2)) for task in scores}
    for rank in mean_ranks(scores, higher):
        low, high, mean = [], [], []
        for task, values_by_name in scores.items():
            interval = t_interval(list(values_by_name[rank.name].values()))
            others = {
                name: t_interval(list(values.values())) for name, values in values_by_name.items() if name != rank.name
            }
            above = sum(other.low > interval.high for other in others.values())
            below = sum(other.high < interval.low for other in others.values())
            before, behind = (above, below) if higher[task] else (below, above)
            low.append(1 + before)
            high.append(6 - behind)
            means = [np.mean(list(values.values())) for values in values_by_name.values()]
            order = stats.rankdata([-value if higher[task] else value for value in means])
            mean.append(order[list(values_by_name).index(rank.name)])
        assert rank.interval == (pytest.approx(np.mean(low)), pytest.approx(np.mean(high)))
        assert rank.mean == pytest.approx(np.mean(mean))
        assert rank.interval[0] <= rank.mean <= rank.interval[1]


def test_intervals_of_ranks_contain_the_true_rank_as_often_as_they_claim():
    """Six contenders, three seeds that move all three tasks: neither false certainty nor nothing said."""
    rng = np.random.default_rng(1)
    held, widths = [], []
    for _ in range(100):
        truth = {f"c{c}": 6.0 - c for c in range(6)}
        noise = rng.normal(size=(6, 3))
        scores = {
            task: {
                name: {s: 3 * level + noise[c, s] + 0.3 * rng.normal() for s in range(3)}
                for c, (name, level) in enumerate(truth.items())
            }
            for task in "tuv"
        }
        for rank in mean_ranks(scores, dict.fromkeys(scores, True)):
            low, high = rank.interval
            held.append(low <= 7 - truth[rank.name] <= high)
            widths.append(high - low)
    assert np.mean(held) >= 0.95
    assert 1 < np.mean(widths) < 2  # of 5


def test_ranks_need_every_task():
    one = {"a": {0: 1.0}, "b": {0: 2.0}}
    assert [rank.name for rank in mean_ranks({"t": one, "u": {"b": {0: 1.0}}}, {"t": True, "u": True})] == ["b"]
    assert mean_ranks({}, {}) == []
    tied = mean_ranks({"t": {"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0, 1: 1.0}}}, {"t": True})
    assert [(rank.mean, rank.interval) for rank in tied] == [(1.5, (1, 2))] * 2


def test_deviation_and_error_are_not_confused():
    summary = summarise([1.0, 3.0, 5.0, 7.0])
    assert summary.sd == pytest.approx(2.581988897)
    assert summary.se == pytest.approx(summary.sd / math.sqrt(4))
