"""A score: the values of one metric over the seeds of one setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mimbench.display import describe_method
from mimbench.report.scores.statistics import Summary, summarise

Key = tuple[Any, ...]
"""Values of the fields of a row, or of a column, in the order of these fields."""

_TOLERANCE = 1e-9
"""How far rounding may put a mean over samples outside of its metric's range."""


@dataclass
class Score:
    """One setting, one metric, one protocol, one or several seeds."""

    shared: Mapping[str, Any]
    """The frame's row of the first seed. Read only columns in which the seeds are equal, such as method, task,
    protocol, unit; for values and record ids see `values` and `records`."""
    fields: Mapping[str, Any]
    """Field -> value, for all fields of the score's row and column in the table."""
    values: dict[int, float] = field(default_factory=dict)
    """Seed -> value."""
    records: dict[int, str] = field(default_factory=dict)
    """Seed -> record id."""
    files: dict[int, str | None] = field(default_factory=dict)
    """Seed -> file of the record; None if it is not on disk."""

    @cached_property
    def summary(self) -> Summary:
        """Mean, std over seeds and interval; only n and mean if a value has a problem."""
        if self.problem:
            count = len(self.values)
            return Summary(count, math.fsum((value or 0) / count for value in self.values.values()))
        return summarise(list(self.values.values()))

    @cached_property
    def problem(self) -> str:
        """What is wrong with the first value outside of its metric's range; "" if no value is."""
        problems = (range_problem(self.shared, value) for value in self.values.values())
        return next(filter(None, problems), "")

    @property
    def is_control(self) -> bool:
        """Whether its method is a control: untrained, trained on labels, or trained without a mask."""
        return describe_method(str(self.shared["method"])).is_control

    @property
    def is_early(self) -> bool:
        """Whether it was measured at an earlier epoch of a pretraining than the last."""
        return not self.shared["final"]


def range_problem(row: Mapping[str, Any], value: float | None) -> str:
    """What is wrong with a value of a row's metric; "" if it is a finite number in the metric's range."""
    low = -math.inf if row["low"] is None else row["low"]
    high = math.inf if row["high"] is None else row["high"]
    if value is not None and math.isfinite(value) and low - _TOLERANCE <= value <= high + _TOLERANCE:
        return ""
    shown = "not a number" if value is None or math.isnan(value) else f"{value:g}"
    return f"{row['metric']} is {shown}, outside of its range {low:g} to {high:g}; see `mimbench verify`"
