"""Ablations: settings of a method that were measured on fewer tasks than another setting of it."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from mimbench.report.scores.choice import Choice
from mimbench.report.scores.collect import collect_scores, filter_rows
from mimbench.report.scores.score import Key, Score

_SAME = ("method", "encoder", "recipe")
"""Fields in which an ablation and the setting that it varies are equal."""


def split_ablations(tidy: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows of the comparison, rows of the ablations); the second is empty if there are none.

    For each method, encoder and recipe the comparison keeps the settings that were measured on the most tasks. The
    ablations are the others, with what the kept settings have in the same columns.

    Raises:
        InputError: as `filter_rows`.
    """
    nothing = tidy.iloc[:0]
    names_a_setting = bool(choice.baseline and choice.baseline.settings)
    if choice.row_fields or choice.column_fields or choice.shows_epochs or names_a_setting:
        return tidy, nothing
    scores = collect_scores(filter_rows(tidy, choice), choice)
    if not {"task", "metric"} <= set(scores.column_fields):
        return tidy, nothing
    columns_of: dict[Key, set[Key]] = defaultdict(set)
    for row, column in scores.scores:
        columns_of[row].add(column)
    rows_of: dict[Key, list[Key]] = defaultdict(list)
    for row in scores.row_keys:
        rows_of[tuple(dict(zip(scores.row_fields, row, strict=True)).get(name) for name in _SAME)].append(row)

    ablated: set[str] = set()
    shown: set[str] = set()
    for rows in rows_of.values():
        most = max(len(columns_of[row]) for row in rows)
        fewer = [row for row in rows if len(columns_of[row]) < most]
        columns = set[Key]().union(*(columns_of[row] for row in fewer))
        ablated |= {name for row in fewer for column in columns_of[row] for name in _ids(scores.scores[row, column])}
        shown |= {
            name for row in rows for column in columns & columns_of[row] for name in _ids(scores.scores[row, column])
        }
    return tidy[~tidy["id"].isin(ablated)], tidy[tidy["id"].isin(shown)]


def _ids(score: Score) -> list[str]:
    return list(score.records.values())
