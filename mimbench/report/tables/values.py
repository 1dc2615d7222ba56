"""Numbers that a cell of a table may hold. Renderers turn them into text (see `render.numbers`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mimbench.report.scores.ranks import Rank
from mimbench.report.scores.statistics import Interval, Summary

Spread = Literal["sd", "se"]
Numbers = tuple[float | int | None, ...]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds: "59.8 ± 1.9 (n=3)"."""

    summary: Summary
    unit: str = "percent"
    spread: Spread = "sd"
    is_in_range: bool = True
    """False: the mean is printed unrounded and without spread, since a value is outside of its metric's range."""
    has_interval: bool = False
    """Whether an interval follows the mean, in place of ±."""
    interval: Interval | None = None
    """None: none can be had."""

    @property
    def width(self) -> float | None:
        """What follows ±; None for one seed."""
        return self.summary.sd if self.spread == "sd" else self.summary.se

    @property
    def n(self) -> int:
        return self.summary.n

    @property
    def numbers(self) -> Numbers:
        if self.has_interval:
            return self.summary.mean, *_limits(self.interval), self.n
        return self.summary.mean, self.width, self.n


@dataclass(frozen=True)
class Difference:
    """A mean paired difference from a baseline: "+4.4 [−0.2, 9.0] (n=3)"."""

    summary: Summary
    unit: str = "percent"

    @property
    def n(self) -> int:
        return self.summary.n

    @property
    def numbers(self) -> Numbers:
        return self.summary.mean, *_limits(self.summary.interval), self.n


@dataclass(frozen=True)
class MeanRank:
    """A mean rank over tasks: "2.5 [1.8, 5.5]"."""

    rank: Rank

    @property
    def n(self) -> None:
        return None

    @property
    def numbers(self) -> Numbers:
        return self.rank.mean, *(self.rank.interval or (None, None))


@dataclass(frozen=True)
class PublishedNumber:
    """A number as a paper prints it: "83.8", or "2.8×" for the unit "times"."""

    value: float
    unit: str = "percent"

    @property
    def n(self) -> None:
        return None

    @property
    def numbers(self) -> Numbers:
        return (self.value,)


@dataclass(frozen=True)
class PublishedDifference:
    """A published number minus another one: "+0.2"."""

    difference: float

    @property
    def n(self) -> None:
        return None

    @property
    def numbers(self) -> Numbers:
        return (self.difference,)


@dataclass(frozen=True)
class PublishedAndDifference:
    """A published number and our mean minus it: "83.8 (−0.3)"."""

    value: float
    difference: float

    @property
    def n(self) -> None:
        return None

    @property
    def numbers(self) -> Numbers:
        return self.value, self.difference


@dataclass(frozen=True)
class MeanAndDifference:
    """Our mean over seeds and its difference from a published number: "83.5 ± 0.1 (n=3), −0.3"."""

    summary: Summary
    difference: float

    @property
    def n(self) -> int:
        return self.summary.n

    @property
    def numbers(self) -> Numbers:
        return self.summary.mean, self.summary.sd, self.n, self.difference


Value = (
    Mean | Difference | MeanRank | PublishedNumber | PublishedDifference | PublishedAndDifference | MeanAndDifference
)


def _limits(interval: Interval | None) -> tuple[float | None, float | None]:
    return (interval.low, interval.high) if interval else (None, None)
