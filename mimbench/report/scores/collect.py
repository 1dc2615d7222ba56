"""The scores of a comparison table by row and column: which rows of a frame go into which score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mimbench.display import describe_method, describe_metric
from mimbench.errors import InputError, nearest
from mimbench.report.records.frame import superseded_rows
from mimbench.report.records.protocols import Labels, label_protocols
from mimbench.report.scores.axes import add_settings, resolve_axes
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.fields import column_of, sort_key
from mimbench.report.scores.score import Key, Score
from mimbench.text import natural_key

_SHARED_BY_SEEDS = ("pretraining", "protocol", "task", "metric")
"""Columns in which all seeds of one score are equal."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores by row and column."""

    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    scores: Mapping[tuple[Key, Key], Score]
    """(row, column) -> score; a key holds the values of the row's or column's fields."""
    row_keys: tuple[Key, ...]
    """Sorted, those of controls first."""
    column_keys: tuple[Key, ...]
    """As the rows."""
    labels: Labels

    @property
    def controls(self) -> int:
        """Number of rows that are those of controls; they come first."""
        return sum(is_of_control(self.row_fields, key) for key in self.row_keys)

    def column(self, key: Key) -> list[Score | None]:
        """One score per row; None: not measured."""
        return [self.scores.get((row, key)) for row in self.row_keys]


def filter_rows(tidy: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The rows of the chosen methods, tasks and metrics, without earlier epochs that a last one supersedes.

    Raises:
        InputError: no records, or a chosen name that none of them has.
    """
    if tidy.empty:
        raise InputError("there are no records to make a table of; run `mimbench run` first")
    all_rows, baseline = tidy, choice.baseline.method if choice.baseline else None
    if not choice.shows_epochs:
        # Before anything else: the last epoch supersedes earlier ones even if the choice leaves it out.
        tidy = tidy[~superseded_rows(tidy)]
    for column, names in (("method", choice.methods), ("task", choice.tasks), ("metric", choice.named_metrics)):
        known = set(all_rows[column])
        for name in names:
            if name not in known:
                raise InputError(f"no record has a {column} {name!r}{nearest(name, known)}")
            if name not in set(tidy[column]):
                raise InputError(f"no record has a {column} {name!r} and all else that was chosen")
        if names:
            tidy = tidy[tidy[column].isin([*names, baseline or ""] if column == "method" else names)]
    if baseline and baseline not in set(tidy["method"]):
        raise InputError(f"no record has the baseline {baseline!r}{nearest(baseline, tidy['method'])}")
    if choice.metrics:
        return tidy
    metrics = list(zip(tidy["task"], tidy["metric"], tidy["primary"], strict=True))
    defaults = {metric for metric in set(metrics) if is_default_metric(*metric)}
    return tidy[[metric in defaults for metric in metrics]]


def is_default_metric(task: str, metric: str, is_primary: bool) -> bool:
    """Whether tables show a metric if no metrics are chosen."""
    return bool(is_primary) or describe_metric(task, metric).is_headline


def collect_scores(tidy: pd.DataFrame, choice: Choice) -> ScoreTable:
    """Scores by the chosen fields, and by as many others as it takes that no score mixes settings."""
    rows, columns = resolve_axes(tidy, choice, has_early=not tidy["final"].all())
    protocol_in_columns = bool({"task", "metric"} & set(columns))
    # Lists by column: a frame of 10,000 records is too slow to read row by row.
    lists = {name: _to_list(tidy[name]) for name in tidy.columns}
    labels = label_protocols(tidy)
    # Settings that no field shows, such as those of a recipe file, are separated by a hash or the record's id.
    for last_resort in ((), ("pretraining",), ("checkpoint",), ("id",)):
        table = _collect(lists, *add_settings(rows, columns, last_resort), protocol_in_columns, labels)
        if table is not None:
            return table
    raise AssertionError("ids are unique")


def _collect(
    lists: Mapping[str, list[Any]],
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    protocol_in_columns: bool,
    labels: Labels,
) -> ScoreTable | None:
    """The table of these fields and the protocol; None if a score would mix settings.

    Args:
        lists: the frame, as lists by column.
        rows: fields of the rows.
        columns: fields of the columns.
        protocol_in_columns: whether the protocol becomes the last field of the columns, or of the rows.
        labels: of the protocols, which are sorted by them.
    """
    row_fields = rows if protocol_in_columns else (*rows, "protocol")
    column_fields = (*columns, "protocol") if protocol_in_columns else columns
    fields = (*row_fields, *column_fields)
    values = {name: lists[column_of(name)] for name in fields}
    rows_of_scores = zip(*(values[name] for name in row_fields), strict=True)
    columns_of_scores = zip(*(values[name] for name in column_fields), strict=True)
    scores: dict[tuple[Key, Key], Score] = {}
    for index, place in enumerate(zip(rows_of_scores, columns_of_scores, strict=True)):
        score = scores.get(place)
        if score is None:
            shared = {name: column[index] for name, column in lists.items()}
            score = scores[place] = Score(shared, dict(zip(fields, (*place[0], *place[1]), strict=True)))
        seed = lists["seed"][index]
        mixes_settings = any(score.shared[name] != lists[name][index] for name in _SHARED_BY_SEEDS)
        if seed in score.values or mixes_settings:
            return None
        score.values[seed] = lists["value"][index]
        score.records[seed] = lists["id"][index]
        score.files[seed] = lists["file"][index]
    protocols = sorted(labels, key=lambda protocol: natural_key(labels[protocol][0]))
    orders = {"metric": list(dict.fromkeys(values.get("metric", ()))), "protocol": protocols}
    row_keys = _sort_keys({row for row, _ in scores}, row_fields, orders)
    column_keys = _sort_keys({column for _, column in scores}, column_fields, orders)
    return ScoreTable(row_fields, column_fields, scores, row_keys, column_keys, labels)


def is_of_control(fields: tuple[str, ...], key: Key) -> bool:
    """Whether a row or column is that of a control, such as an untrained encoder."""
    return "method" in fields and describe_method(str(key[fields.index("method")])).is_control


def _to_list(column: pd.Series) -> list[Any]:
    """Values as Python objects; missing values are None."""
    values = column.to_numpy(dtype=object, copy=True)
    values[column.isna().to_numpy()] = None
    return list(values)


def _sort_keys(keys: set[Key], fields: tuple[str, ...], orders: Mapping[str, Sequence[Any]]) -> tuple[Key, ...]:
    """Keys of controls first, then by value, missing values first; a field of `orders` in the order of its values."""

    def order(key: Key) -> tuple[bool, list[tuple[int, float, str]]]:
        values = [
            sort_key(orders[name].index(value) if name in orders else value)
            for name, value in zip(fields, key, strict=True)
        ]
        return not is_of_control(fields, key), values

    return tuple(sorted(keys, key=order))
