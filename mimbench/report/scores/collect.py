"""The scores of a comparison table by row and column: which rows of a frame go into which score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mimbench.display import describe_metric
from mimbench.errors import InputError, nearest
from mimbench.report.records.frame import early_rows, superseded_rows
from mimbench.report.scores.axes import add_settings, resolve_axes
from mimbench.report.scores.choice import ALL_METRICS, Choice
from mimbench.report.scores.fields import column_of, sort_key
from mimbench.report.scores.score import Key, Score

_ONE = ("pretraining", "protocol", "task", "metric")
"""What all seeds of one mean share."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores by row and column, and the fields that these stand for."""

    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    scores: Mapping[tuple[Key, Key], Score]
    row_keys: tuple[Key, ...]
    column_keys: tuple[Key, ...]

    def column(self, key: Key) -> list[Score | None]:
        return [self.scores.get((row, key)) for row in self.row_keys]


def filter_rows(tidy: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The rows of the chosen methods, tasks and metrics, and of the ends of pretrainings where these are there."""
    if tidy.empty:
        raise InputError("there are no records to make a table of; run `mimbench run` first")
    everything, baseline = tidy, choice.baseline.method if choice.baseline else None
    if not choice.shows_epochs:  # before all else: whether the end is there is no matter of the choice
        tidy = tidy[~superseded_rows(tidy)]
    metrics = () if choice.metrics == ALL_METRICS else choice.metrics
    for column, names in (("method", choice.methods), ("task", choice.tasks), ("metric", metrics)):
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


def collect_scores(tidy: pd.DataFrame, choice: Choice) -> ScoreTable:
    """Scores by the fields that are chosen, and by all that has to be told so that no cell mixes settings."""
    rows, columns = resolve_axes(tidy, choice, early=bool(early_rows(tidy).any()))
    by_column = bool({"task", "metric"} & set(columns))
    for last_resort in ((), ("pretraining",), ("checkpoint",), ("id",)):
        grid = _collect(tidy, *add_settings(rows, columns, last_resort), by_column)
        if grid is not None:
            return grid
    raise AssertionError("ids are unique")


def _collect(tidy: pd.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], by_column: bool) -> ScoreTable | None:
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
        if seed in score.values or any(score.shared[name] != lists[name][index] for name in _ONE):
            return None
        score.values[seed] = lists["value"][index]
        score.records[seed] = lists["id"][index]
    metrics = list(dict.fromkeys(keys.get("metric", ())))
    return ScoreTable(
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
            sort_key(metrics.index(value) if name == "metric" else value)
            for name, value in zip(fields, key, strict=True)
        ]

    return tuple(sorted(keys, key=order))
