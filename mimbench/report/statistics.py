"""Means over seeds and how sure they are: deviations, intervals, paired differences, ranks, and which is best.

Two spreads are told apart everywhere: the seed sd is the sample standard deviation (n - 1) of one run; the s.e. is
that of the mean, seed sd / sqrt(n). scipy is imported where it is needed: it takes long.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95
FEW = 5
"""Fewer seeds have too few distinct resamples (3 seeds: 10) for a bootstrap; their interval is Student's t."""
RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """Where a mean lies with probability `level`. kind: "t" (Student) or "bootstrap" (percentile, over seeds)."""

    low: float
    high: float
    kind: Literal["t", "bootstrap"]
    level: float = LEVEL

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
    told_apart: bool = True
    """False where the best's interval overlaps the next's, or one of them has none: to be marked where shown."""


@dataclass(frozen=True)
class Rank:
    """Mean rank over tasks (1 is best, ties share the mean of their places)."""

    name: str
    mean: float
    tasks: int
    interval: Interval | None
    """Bootstrap over seeds; None where a score has one seed only."""


def summarise(values: Sequence[float]) -> Summary:
    """Mean, seed sd and Student's t interval of the mean.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("nothing to sum up")
    mean, sd = _mean_and_sd(values)
    return Summary(len(values), mean, sd, t_interval(values))


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Student's t interval of the mean; None for fewer than two values."""
    mean, sd = _mean_and_sd(values)
    if sd is None:
        return None
    half = _t_quantile(len(values) - 1, (1 + level) / 2) * sd / math.sqrt(len(values))
    return Interval(mean - half, mean + half, "t", level)


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """In plain Python: tables have thousands of cells with a handful of values each."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@functools.cache
def _t_quantile(freedom: int, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def bootstrap_interval(values: Sequence[float], level: float = LEVEL, seed: int = 0) -> Interval | None:
    """Percentile bootstrap interval of the mean, the same on every call; None for fewer than two values."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return None
    from scipy.stats import bootstrap

    found = bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
        vectorized=True,
    ).confidence_interval
    return Interval(float(found.low), float(found.high), "bootstrap", level)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Summary | None:
    """Differences to a baseline over the seeds that both have; None where they share none.

    Pairing by seed takes out what a seed does to both (order of the data, split). The interval is a bootstrap over
    seeds, and Student's t for fewer than FEW; `kind` tells which.
    """
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return None
    differences = [values[seed] - baseline[seed] for seed in shared]
    plain = summarise(differences)
    if len(shared) < FEW:
        return plain
    return Summary(plain.n, plain.mean, plain.sd, bootstrap_interval(differences))


def best_and_next(scores: Sequence[Summary | None], higher_is_better: bool = True) -> Verdict:
    """The best mean, the second, and whether their intervals keep them apart. None: not measured.

    A single score is compared with nothing and is no best.
    """
    sign = 1 if higher_is_better else -1
    present = [(sign * score.mean, index) for index, score in enumerate(scores) if score is not None]
    if len(present) < 2:
        return Verdict()
    places = sorted({mean for mean, _ in present}, reverse=True)
    at = [tuple(index for mean, index in present if mean == place) for place in places[:2]]
    if len(at[0]) > 1:
        return Verdict(at[0], (), told_apart=False)
    best, second = scores[at[0][0]], [scores[index] for index in at[1]]
    apart = all(
        best and other and best.interval and other.interval and not best.interval.overlaps(other.interval)
        for other in second
    )
    return Verdict(at[0], at[1], told_apart=apart)


def mean_ranks(
    scores: Mapping[str, Mapping[str, Mapping[int, float]]],
    higher_is_better: Mapping[str, bool],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Rank]:
    """Each contender's mean rank over tasks, best first.

    Args:
        scores: task -> contender -> seed -> value. Contenders that lack a task are left out.
        higher_is_better: by task.

    Seeds that all contenders of a task share are resampled together, so that what a seed does to all stays paired;
    others each for themselves. Ranks are of the means over the resampled seeds.
    """
    names = [name for name in next(iter(scores.values()), {}) if all(name in of for of in scores.values())]
    if not names:
        return []
    rng = np.random.default_rng(seed)
    observed = np.stack([_ranks(_means(of, names), higher_is_better[task]) for task, of in scores.items()])
    drawn = np.stack(
        [_ranks(_resampled(of, names, resamples, rng), higher_is_better[task]) for task, of in scores.items()]
    ).mean(0)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    spread = all(len(of[name]) > 1 for of in scores.values() for name in names)
    ranks = [
        Rank(name, float(mean), len(scores), Interval(float(lo), float(hi), "bootstrap") if spread else None)
        for name, mean, lo, hi in zip(names, observed.mean(0)[0], low, high, strict=True)
    ]
    return sorted(ranks, key=lambda rank: rank.mean)


def _means(of: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> np.ndarray:
    return np.array([[np.mean(list(of[name].values())) for name in names]])


def _resampled(
    of: Mapping[str, Mapping[int, float]], names: Sequence[str], resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Means over resampled seeds, [resamples, contenders]."""
    seeds = sorted(of[names[0]])
    if all(sorted(of[name]) == seeds for name in names):
        values = np.array([[of[name][key] for key in seeds] for name in names])
        drawn = rng.integers(len(seeds), size=(resamples, len(seeds)))
        return values[:, drawn].mean(-1).T
    columns = []
    for name in names:
        own = np.array(list(of[name].values()))
        columns.append(own[rng.integers(len(own), size=(resamples, len(own)))].mean(-1))
    return np.stack(columns, axis=1)


def _ranks(means: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Places along the last axis, 1 is best; ties share the mean of their places."""
    from scipy.stats import rankdata

    return rankdata(-means if higher_is_better else means, axis=-1)
