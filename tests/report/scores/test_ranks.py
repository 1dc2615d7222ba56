"""Mean ranks and what tests leave open of them, against scipy and cases known by heart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mimbench.report.scores.ranks import mean_ranks
from mimbench.report.scores.statistics import best_and_next


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
def test_a_range_of_ranks_is_what_paired_tests_leave_open(trial):
    """Counted with scipy: whoever no test distinguishes may come before or behind, in every task at once."""
    rng = np.random.default_rng(trial)
    scores = random_scores(rng, 6, 3, int(rng.integers(3, 7)))
    higher = {task: bool(rng.integers(2)) for task in scores}
    for rank in mean_ranks(scores, higher):
        low, high, mean = [], [], []
        for task, of_task in scores.items():
            sign = 1 if higher[task] else -1
            values = {name: sign * np.array(list(seeds.values())) for name, seeds in of_task.items()}
            differ = {frozenset(pair) for name in values for pair in rejected_by_scipy(values, name)}
            rivals = [name for name in values if frozenset((name, rank.name)) in differ]
            low.append(1 + sum(values[name].mean() > values[rank.name].mean() for name in rivals))
            high.append(6 - sum(values[name].mean() < values[rank.name].mean() for name in rivals))
            order = stats.rankdata([-value.mean() for value in values.values()])
            mean.append(order[list(values).index(rank.name)])
        assert rank.interval == (pytest.approx(np.mean(low)), pytest.approx(np.mean(high)))
        assert rank.mean == pytest.approx(np.mean(mean))


def rejected_by_scipy(values, name):
    """(name, rival) of each rival that a paired t test distinguishes, Holm over the rivals."""
    rivals = [rival for rival in values if rival != name]
    p_values = np.array([stats.ttest_rel(values[name], values[rival]).pvalue for rival in rivals])
    adjusted = np.maximum.accumulate(np.sort(p_values) * np.arange(len(rivals), 0, -1))
    return [(name, rivals[place]) for place, p in zip(np.argsort(p_values), adjusted, strict=True) if p <= 0.05]


@pytest.mark.parametrize("trial", range(10))
def test_a_score_without_a_mark_never_ranks_first(trial):
    rng = np.random.default_rng(trial)
    (of_task,) = random_scores(rng, 6, 1, 5).values()
    verdict = best_and_next(list(of_task.values()))
    ranks = {rank.name: rank for rank in mean_ranks({"t": of_task}, {"t": True})}
    for index, name in enumerate(of_task):
        if index not in (*verdict.best, *verdict.similar):
            assert ranks[name].interval[0] > 1


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
    assert 1 < np.mean(widths) < 4.5  # of 5


def test_ranks_need_every_task():
    one = {"a": {0: 1.0}, "b": {0: 2.0}}
    assert [rank.name for rank in mean_ranks({"t": one, "u": {"b": {0: 1.0}}}, {"t": True, "u": True})] == ["b"]
    assert mean_ranks({}, {}) == []
    tied = mean_ranks({"t": {"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0, 1: 1.0}}}, {"t": True})
    assert [(rank.mean, rank.interval) for rank in tied] == [(1.5, (1, 2))] * 2
