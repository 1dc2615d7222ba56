"""Means over seeds and how sure they are: deviations, intervals, paired differences, and which is best.

Two spreads exist: sd, the std over seeds (sample standard deviation, n - 1), and se, the standard error of the mean,
sd / sqrt(n). Functions import scipy when they need it: the import takes long.
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


@dataclass(frozen=True)
class Summary:
    """Values over seeds, summed up. sd, se and interval are None for one value, which has no spread."""

    n: int
    mean: float
    sd: float | None = None
    """Std over seeds: sample standard deviation."""
    interval: Interval | None = None
    """Of the mean."""

    def as_json(self) -> dict[str, float | int | None]:
        """Mean, sd, n, and the limits of the interval."""
        interval = self.interval
        return {
            "mean": self.mean,
            "sd": self.sd,
            "n": self.n,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
        }

    @property
    def se(self) -> float | None:
        """Standard error of the mean over seeds, sd / sqrt(n)."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)


@dataclass(frozen=True)
class Verdict:
    """Which of several means is best. Indices."""

    best: tuple[int, ...] = ()
    """The best mean; several if they are equal."""
    second: tuple[int, ...] = ()
    """The next mean; () if several are the best."""
    similar: tuple[int, ...] = ()
    """All others that a test does not distinguish from the best, by their means."""
    tested: int = 0
    """Number of others that a test compared with the best."""
    untested: int = 0
    """Number of others that share too few seeds with the best for a test."""


def summarise(values: Sequence[float]) -> Summary:
    """Mean, std over seeds and Student's t interval of the mean.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("no values to summarise")
    mean, sd = _mean_and_sd(values)
    return Summary(len(values), mean, sd, t_interval(values))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean; None for fewer than two values."""
    mean, sd = _mean_and_sd(values)
    if sd is None:
        return None
    half = t_quantile(len(values)) * sd / math.sqrt(len(values))
    return Interval(mean - half, mean + half)


def t_quantile(count: int) -> float:
    """Student's t of the interval of a mean over `count` values, at LEVEL."""
    return _t_quantile(count - 1, (1 + LEVEL) / 2)


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
    """Differences from a baseline over the seeds that both have; None if they share no seed.

    Pairing by seed removes effects that a seed has on both (order of the data, split). The interval is that of a
    paired t test.
    """
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return None
    return summarise([values[seed] - baseline[seed] for seed in shared])


def paired_p_value(values: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """Two-sided p value of the paired t test over the seeds that both have.

    None for fewer than two seeds, and for two with the same difference, which say nothing of its spread.
    """
    difference = paired_difference(values, others)
    if difference is None or difference.se is None:
        return None
    if difference.se == 0:
        if difference.mean == 0:
            return 1.0
        return None if difference.n == 2 else 0.0
    from scipy.special import stdtr

    return 2 * float(stdtr(difference.n - 1, -abs(difference.mean) / difference.se))


def reject_by_holm(p_values: Sequence[float], error: float = 1 - LEVEL) -> list[bool]:
    """Which hypotheses are rejected if the chance of any false rejection is to be at most `error`.

    Holm (1979, Scand. J. Stat. 6(2), 65-70): from the least p value on, as long as p <= error / (hypotheses left).
    """
    rejected = [False] * len(p_values)
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        if p_values[index] > error / (len(p_values) - place):
            break
        rejected[index] = True
    return rejected


def best_and_next(scores: Sequence[Mapping[int, float] | None], higher_is_better: bool = True) -> Verdict:
    """The best mean, the next, and all that are not distinguishable from the best.

    A paired t test compares the best mean with each other one over the seeds that both have; Holm's correction keeps
    the chance of any false difference below 1 - LEVEL. One that is better on the shared seeds is never worse.

    Args:
        scores: seed -> value; None: not measured. A single score, or means that are all equal, have no best.
    """
    sign = 1 if higher_is_better else -1
    means = {index: math.fsum(score.values()) / len(score) for index, score in enumerate(scores) if score}
    order = sorted(means, key=lambda index: (-sign * means[index], index))
    places = list(dict.fromkeys(means[index] for index in order))
    if len(places) < 2:
        return Verdict()
    first, second = (tuple(index for index in order if means[index] == place) for place in places[:2])
    best = scores[first[0]] or {}
    p_values = {index: paired_p_value(best, scores[index] or {}) for index in order if index not in first}
    tested = {index: value for index, value in p_values.items() if value is not None}
    rejected = dict(zip(tested, reject_by_holm(list(tested.values())), strict=True))
    similar = tuple(index for index in tested if not (rejected[index] and is_ahead(best, scores[index] or {}, sign)))
    return Verdict(first, () if len(first) > 1 else second, similar, len(tested), len(p_values) - len(tested))


def is_ahead(best: Mapping[int, float], other: Mapping[int, float], sign: int) -> bool:
    """Whether `best` is better than `other` on the seeds that both have."""
    difference = paired_difference(best, other)
    return difference is not None and sign * difference.mean > 0
