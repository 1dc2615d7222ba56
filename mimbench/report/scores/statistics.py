"""Means over seeds and how sure they are: deviations, intervals, paired differences, ranks, and which is best.

Two spreads are told apart everywhere: the seed sd is the sample standard deviation (n - 1) of one run; the s.e. is
that of the mean, seed sd / sqrt(n). scipy is imported where it is needed: it takes long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
LEVEL_TEXT = f"{100 * LEVEL:g} %"


@dataclass(frozen=True)
class Interval:
    """Student's t interval of a mean at LEVEL."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Summary:
    """Values over seeds, summed up. sd, se and interval are None for one value: it tells nothing of its spread."""

    n: int
    mean: float
    sd: float | None = None
    """Seed sd: sample standard deviation over seeds."""
    interval: Interval | None = None
    """Of the mean."""

    @property
    def se(self) -> float | None:
        """s.e.: standard error of the mean over seeds, sd / sqrt(n)."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)


@dataclass(frozen=True)
class Verdict:
    """Which of several means is best. Indices; ties share a place."""

    best: tuple[int, ...] = ()
    second: tuple[int, ...] = ()
    rivals: tuple[int, ...] = ()
    """All others whose interval overlaps the best's, and those where one of the two has none; best mean first."""

    @property
    def is_clear(self) -> bool:
        """Whether one score is significantly better than all others: no tie, no rivals."""
        return len(self.best) < 2 and not self.rivals


@dataclass(frozen=True)
class Rank:
    """Mean rank over tasks (1 is best, ties share the mean of their places)."""

    name: str
    mean: float
    tasks: int
    interval: tuple[float, float] | None
    """Least and largest mean rank that the scores' own intervals, each marginal, leave open, see `mean_ranks`; None
    where a score has one seed only."""


def summarise(values: Sequence[float]) -> Summary:
    """Mean, seed sd and Student's t interval of the mean.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("nothing to sum up")
    mean, sd = _mean_and_sd(values)
    return Summary(len(values), mean, sd, t_interval(values))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean; None for fewer than two values."""
    mean, sd = _mean_and_sd(values)
    if sd is None:
        return None
    half = _t_quantile(len(values) - 1, (1 + LEVEL) / 2) * sd / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """In plain Python: tables have thousands of cells with a handful of values each."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)


@functools.cache
def _t_quantile(freedom: int, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Summary | None:
    """Differences to a baseline over the seeds that both have; None where they share none.

    Pairing by seed takes out what a seed does to both (order of the data, split). The interval is that of a paired
    t test.
    """
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return None
    return summarise([values[seed] - baseline[seed] for seed in shared])


def best_and_next(scores: Sequence[Summary | None], higher_is_better: bool = True) -> Verdict:
    """The best mean, the second, and all whose intervals do not keep them apart from the best. None: not measured.

    A single score, or scores that are all the same, have no best.
    """
    sign = 1 if higher_is_better else -1
    present = sorted((-sign * score.mean, index) for index, score in enumerate(scores) if score is not None)
    places = list(dict.fromkeys(mean for mean, _ in present))
    if len(places) < 2:
        return Verdict()
    best, second = (tuple(index for mean, index in present if mean == place) for place in places[:2])
    if len(best) > 1:
        return Verdict(best)
    rivals = [
        index
        for _, index in present
        if index not in best and not _significantly_different(scores[best[0]], scores[index])
    ]
    return Verdict(best, second, tuple(rivals))


def _significantly_different(one: Summary | None, other: Summary | None) -> bool:
    return bool(one and other and one.interval and other.interval and not one.interval.overlaps(other.interval))


def mean_ranks(
    scores: Mapping[str, Mapping[str, Mapping[int, float]]], higher_is_better: Mapping[str, bool]
) -> list[Rank]:
    """Each contender's mean rank over tasks, best first.

    Args:
        scores: task -> contender -> seed -> value. Contenders that lack a task are left out.
        higher_is_better: by task.

    The interval is built as by Klein, Wright and Wieczorek (2020, J. R. Stat. Soc. C 69(3), 589-606): in each task a
    contender comes after all that are told apart from it and better, and before all that are told apart and worse, as
    `best_and_next` tells them apart; of two that overlap either may lead. In every task at once, so what one
    pretraining does to all its tasks makes no interval too narrow. Theirs holds for all ranks together, its level
    adjusted for that; here each score's interval is marginal (95 %, Student's t), and all together hold less often.
    Resampling seeds does not do for ranks: an order that is drawn repeats the observed one too often.
    """
    names = [name for name in next(iter(scores.values()), {}) if all(name in of for of in scores.values())]
    summed = [[summarise(list(of[name].values())) for name in names] for of in scores.values()]
    known = all(summary.interval for summaries in summed for summary in summaries)
    places = [_places(summaries, higher_is_better[task]) for task, summaries in zip(scores, summed, strict=True)]
    ranks = []
    for name, of in zip(names, zip(*places, strict=True), strict=True):
        mean, low, high = (math.fsum(kind) / len(scores) for kind in zip(*of, strict=True))
        ranks.append(Rank(name, mean, len(scores), (low, high) if known else None))
    return sorted(ranks, key=lambda rank: rank.mean)


def _places(scores: Sequence[Summary], higher_is_better: bool) -> list[tuple[float, int, int]]:
    """Each score's rank, and the least and the largest that intervals leave open."""
    sign = 1 if higher_is_better else -1
    found = []
    for one in scores:
        leads = [sign * (other.mean - one.mean) for other in scores if other is not one]
        apart = [sign * (other.mean - one.mean) for other in scores if _significantly_different(one, other)]
        rank = 1 + sum(1.0 if lead > 0 else 0.5 if lead == 0 else 0.0 for lead in leads)
        found.append((rank, 1 + sum(lead > 0 for lead in apart), len(scores) - sum(lead < 0 for lead in apart)))
    return found
