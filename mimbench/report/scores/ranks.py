"""Mean ranks over tasks, and which ranks a paired test leaves open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mimbench.report.scores.statistics import is_ahead, paired_p_value, reject_by_holm

Values = Mapping[int, float]
"""Seed -> value."""


@dataclass(frozen=True)
class Rank:
    """Mean rank over tasks (1 is best, ties share the mean of their places)."""

    name: str
    mean: float
    tasks: int
    interval: tuple[float, float] | None
    """Lowest and highest mean rank that the test leaves open, see `mean_ranks`; None if any score has one seed."""


def mean_ranks(scores: Mapping[str, Mapping[str, Values]], higher_is_better: Mapping[str, bool]) -> list[Rank]:
    """Each contender's mean rank over tasks, best first.

    The range of ranks follows the rule of the marks (`best_and_next`): within a task, paired t tests over seeds compare
    each contender with its rivals, with Holm's correction over these. Of two that no such test distinguishes, either
    may lead. The ranges of all tasks are taken at once, as by Klein, Wright and Wieczorek (2020, J. R. Stat. Soc. C
    69(3), 589-606), so effects of one pretraining on all its tasks make no range too narrow. Resampling seeds does not
    work for ranks: a resampled order repeats the observed one too often.

    Args:
        scores: task -> contender -> seed -> value. Contenders without a score in every task are left out.
        higher_is_better: by task.
    """
    names = [name for name in next(iter(scores.values()), {}) if all(name in of_task for of_task in scores.values())]
    of_tasks = [[of_task[name] for name in names] for of_task in scores.values()]
    has_ranges = all(len(values) > 1 for of_task in of_tasks for values in of_task)
    places = [_places(of_task, higher_is_better[task]) for task, of_task in zip(scores, of_tasks, strict=True)]
    ranks = []
    for name, places_of_name in zip(names, zip(*places, strict=True), strict=True):
        mean, low, high = (math.fsum(values) / len(scores) for values in zip(*places_of_name, strict=True))
        ranks.append(Rank(name, mean, len(scores), (low, high) if has_ranges else None))
    return sorted(ranks, key=lambda rank: rank.mean)


def rejected_pairs(scores: Sequence[Values]) -> set[tuple[int, int]]:
    """Pairs (i, j) with i < j that differ: a paired t test rejects equality, Holm's correction over the rivals of i, or
    of j.

    Whoever is not marked as similar to the best of a column thus differs from it.
    """
    p_values = {pair: paired_p_value(scores[pair[0]], scores[pair[1]]) for pair in _pairs(len(scores))}
    different = set()
    for index in range(len(scores)):
        tested = {pair: p for pair, p in p_values.items() if index in pair and p is not None}
        rejected = reject_by_holm(list(tested.values()))
        different |= {pair for pair, is_rejected in zip(tested, rejected, strict=True) if is_rejected}
    return different


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(count), 2))


def _places(scores: Sequence[Values], higher_is_better: bool) -> list[tuple[float, int, int]]:
    """Each score's rank by its mean, and the lowest and highest rank that the test leaves open."""
    sign = 1 if higher_is_better else -1
    means = [sign * math.fsum(values.values()) / len(values) for values in scores]
    ahead, behind = [0] * len(scores), [0] * len(scores)
    for one, other in rejected_pairs(scores):
        leads = is_ahead(scores[one], scores[other], sign)
        # A pair whose shared seeds contradict its means is left open.
        if leads == (means[one] > means[other]):
            winner, loser = (one, other) if leads else (other, one)
            behind[winner] += 1
            ahead[loser] += 1
    places = []
    for index, mean in enumerate(means):
        better = sum(other > mean for other in means)
        tied = sum(other == mean for other in means) - 1
        places.append((1 + better + tied / 2, 1 + ahead[index], len(scores) - behind[index]))
    return places
