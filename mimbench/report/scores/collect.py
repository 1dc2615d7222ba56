"""The scores of a comparison table by row and column: what is chosen, and what has to be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from mimbench.display import describe_metric
from mimbench.errors import InputError, nearest
from mimbench.recipe import AT_EPOCH
from mimbench.report.records.frame import early, early_beside_end
from mimbench.report.scores.axes import column_of, order_of, sides, with_settings
from mimbench.report.scores.statistics import Summary, summarise

if TYPE_CHECKING:
    from mimbench.report.scores.baseline import Baseline

Key = tuple[Any, ...]
_ONE = ("pretraining", "protocol", "task", "metric")
"""What all seeds of one mean share."""


_ROUNDING = 1e-9
"""By how much a mean over samples may leave its metric's range."""


@dataclass(frozen=True)
class Choice:
    """What to show. Fields are columns of the frame, or paths of the recipe; () leaves the choice to the table."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """(): each task's primary metric, and those that its display file calls headlines."""
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    baseline: Baseline | None = None
    """Differences to it, paired by seed, in a column of their own."""
    published: bool = False
    """A column with the papers' numbers where the protocol is the same."""
    ranks: bool = False
    """A column with the mean rank over tasks."""
    epochs: bool = False
    """Earlier epochs of pretrainings too, not only their ends; so it is where one of the fields is the epoch."""
    spread: Literal["sd", "se"] = "sd"

    @property
    def shows_epochs(self) -> bool:
        return self.epochs or bool({"at_epoch", AT_EPOCH} & {*self.rows, *self.columns})


@dataclass
class Score:
    """The measurements of one cell: one setting, one metric, one protocol, several seeds."""

    first: Mapping[str, Any]
    """Its first row of the frame."""
    fields: Mapping[str, Any]
    """What tells its row and its column from others."""
    values: dict[int, float] = field(default_factory=dict)
    """By seed."""
    records: dict[int, str] = field(default_factory=dict)
    """Ids, by seed."""

    @cached_property
    def summary(self) -> Summary:
        if self.problem:  # a mean to show, without an interval
            return Summary(
                len(self.values), math.fsum((value or 0) / len(self.values) for value in self.values.values())
            )
        return summarise(list(self.values.values()))

    @cached_property
    def problem(self) -> str:
        """What is wrong with the first value that is outside of its metric's range; "" if none is."""
        return next(filter(None, (out_of_range(self.first, value) for value in self.values.values())), "")


def out_of_range(row: Mapping[str, Any], value: float | None) -> str:
    """What is wrong with a value of this row's metric; "" if it is a finite number in the metric's range."""
    low, high = (
        limit if limit is not None else end for limit, end in ((row["low"], -math.inf), (row["high"], math.inf))
    )
    if value is not None and math.isfinite(value) and low - _ROUNDING <= value <= high + _ROUNDING:
        return ""
    shown = "not a number" if value is None or math.isnan(value) else f"{value:g}"
    return f"{row['metric']} is {shown}, outside of its range {low:g} to {high:g}; see `mimbench verify`"


@dataclass(frozen=True)
class Grid:
    """Scores by row and column, and the fields that these stand for."""

    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    scores: Mapping[tuple[Key, Key], Score]
    rows: tuple[Key, ...]
    columns: tuple[Key, ...]

    def column(self, key: Key) -> list[Score | None]:
        return [self.scores.get((row, key)) for row in self.rows]


def selected(tidy: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The rows of the chosen methods, tasks and metrics, and of the ends of pretrainings where these are there."""
    if tidy.empty:
        raise InputError("there are no records to make a table of; run `mimbench run` first")
    everything, baseline = tidy, choice.baseline.method if choice.baseline else None
    if not choice.shows_epochs:  # before all else: whether the end is there is no matter of the choice
        tidy = tidy[~early_beside_end(tidy)]
    for column, names in (("method", choice.methods), ("task", choice.tasks), ("metric", choice.metrics)):
        known = set(everything[column])
        for name in names:
            if name not in known:
                raise InputError(f"no record has a {column} {name!r}{nearest(name, known)}")
            if name not in set(tidy[column]):
                raise InputError(f"no record has a {column} {name!r} and all else that was asked for")
        if names:
            tidy = tidy[tidy[column].isin([*names, baseline or ""] if column == "method" else names)]
    if baseline and baseline not in set(tidy["method"]):
        raise InputError(f"no record has the baseline {baseline!r}{nearest(baseline, tidy['method'])}")
    return tidy if choice.metrics else tidy[tidy["primary"] | _are_headlines(tidy)]


def _are_headlines(tidy: pd.DataFrame) -> pd.Series:
    metrics = list(zip(tidy["task"], tidy["metric"], strict=True))
    headlines = {metric for metric in set(metrics) if describe_metric(*metric).is_headline}
    return pd.Series([metric in headlines for metric in metrics], index=tidy.index, dtype=bool)


def gathered(tidy: pd.DataFrame, choice: Choice) -> Grid:
    """Scores by the fields that are chosen, and by all that has to be told so that no cell mixes settings."""
    rows, columns = sides(tidy, choice, early=bool(early(tidy).any()))
    by_column = bool({"task", "metric"} & set(columns))
    for last_resort in ((), ("pretraining",), ("checkpoint",), ("id",)):
        grid = _gathered(tidy, *with_settings(rows, columns, last_resort), by_column)
        if grid is not None:
            return grid
    raise AssertionError("ids are unique")


def _gathered(tidy: pd.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], by_column: bool) -> Grid | None:
    """The grid with the protocol as a hidden last field of columns or rows; None where a cell would mix settings."""
    row_fields, column_fields = (rows, (*columns, "protocol")) if by_column else ((*rows, "protocol"), columns)
    lists = {name: _plain(tidy[name]) for name in tidy.columns}
    keys = {name: lists[column_of(name)] for name in (*row_fields, *column_fields)}
    rows_of = zip(*(keys[name] for name in row_fields), strict=True)
    columns_of = zip(*(keys[name] for name in column_fields), strict=True)
    scores: dict[tuple[Key, Key], Score] = {}
    for index, place in enumerate(zip(rows_of, columns_of, strict=True)):
        score = scores.get(place)
        if score is None:
            first = {name: values[index] for name, values in lists.items()}
            told = dict(zip((*row_fields, *column_fields), (*place[0], *place[1]), strict=True))
            score = scores[place] = Score(first, told)
        seed = lists["seed"][index]
        if seed in score.values or any(score.first[name] != lists[name][index] for name in _ONE):
            return None
        score.values[seed] = lists["value"][index]
        score.records[seed] = lists["id"][index]
    metrics = list(dict.fromkeys(keys.get("metric", ())))
    return Grid(
        row_fields,
        column_fields,
        scores,
        _sorted({row for row, _ in scores}, row_fields, metrics),
        _sorted({column for _, column in scores}, column_fields, metrics),
    )


def _plain(column: pd.Series) -> list[Any]:
    """Values as Python objects; what is missing is None."""
    values = column.to_numpy(dtype=object, copy=True)
    values[column.isna().to_numpy()] = None
    return list(values)


def _sorted(keys: set[Key], fields: tuple[str, ...], metrics: Sequence[str]) -> tuple[Key, ...]:
    """By value; metrics as the task declares them; what is missing first."""

    def order(key: Key) -> list[tuple[int, float, str]]:
        return [
            order_of(metrics.index(value) if name == "metric" else value)
            for name, value in zip(fields, key, strict=True)
        ]

    return tuple(sorted(keys, key=order))
