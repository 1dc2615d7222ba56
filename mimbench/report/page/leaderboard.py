"""The leaderboard as data: the comparison table of everything, with the runs behind each of its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mimbench.display import describe_metric
from mimbench.recipe import AT
from mimbench.report.published.numbers import (
    describe_epochs,
    find_published,
    format_source,
    load_author_numbers,
)
from mimbench.report.records.frame import superseded_rows
from mimbench.report.scores.choice import ALL_METRICS, Choice
from mimbench.report.scores.collect import ScoreTable, collect_scores, filter_rows, is_default_metric
from mimbench.report.scores.fields import is_number
from mimbench.report.scores.names import NAMES
from mimbench.report.scores.score import Key, Score
from mimbench.report.tables.comparison import build_table
from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.tables.table import Table

ROWS, COLUMNS = ("method", "encoder"), ("task", "metric")
LAST_RESORTS = ("pretraining", "checkpoint", "id")
_TITLES = {"pretraining": "Pretraining's hash"}
"""The page also has a column that describes the pretraining in words."""


@dataclass(frozen=True)
class Leaderboard:
    """The same table as scores and as formatted cells, with the marks and footnotes of every format."""

    grid: ScoreTable
    table: Table
    early: frozenset[str]
    """Ids of records of earlier epochs whose last epoch is in the table too."""

    @property
    def label_columns(self) -> int:
        return len(self.table.columns) - len(self.grid.column_keys)


def build_leaderboard(tidy: pd.DataFrame) -> Leaderboard:
    """A row per method, encoder and pretraining; a column per metric of each task under each protocol."""
    choice = Choice(row_fields=ROWS, column_fields=COLUMNS, metrics=ALL_METRICS, epochs=True)
    chosen = filter_rows(tidy, choice)
    grid = collect_scores(chosen, choice)
    early = frozenset(chosen.loc[superseded_rows(chosen), "id"])
    return Leaderboard(grid, build_table(grid, choice, NAMES), early)


def describe_leaderboard(board: Leaderboard, numbers: Mapping[str, int]) -> dict[str, Any]:
    """The leaderboard as the page reads it.

    Args:
        numbers: of runs, by id.
    """
    grid, table, skip = board.grid, board.table, board.label_columns
    # The epoch or step is part of the description of the pretraining.
    shown = [index for index in range(skip) if grid.row_fields[index] not in AT]
    notes = table.notes
    letters = dict(zip(notes, table.letters(notes), strict=True))
    rows = []
    for key, cells in zip(grid.row_keys, table.rows, strict=True):
        row: dict[str, Any] = {
            "key": row_key(grid, key),
            "labels": [cell_text(cells[index]) for index in shown],
            "cells": [],
        }
        rows.append(row)
        scores = {}
        for index, column in enumerate(grid.column_keys):
            if score := grid.scores.get((key, column)):
                scores[index] = score
        for index, score in scores.items():
            cell = cells[skip + index]
            row["cells"].append(
                {
                    "column": index,
                    **score.summary.as_json(),
                    "notes": [letters[note] for note in cell.notes],
                    "runs": [numbers[name] for name in score.records.values()],
                    **_published(score),
                }
            )
        first = next(iter(scores.values())).shared
        row |= {"method": first["method"], "encoder": first["backbone"], "pretraining": _pretraining(first)}
        row["apart"] = all(score.is_control for score in scores.values())
        row["epoch"] = "" if first["final"] else describe_epochs(first)
        row["early"] = all(board.early.issuperset(score.records.values()) for score in scores.values())
    return {
        "labels": [_label(board, index) for index in shown],
        "columns": [_column(board, index, letters) for index in range(len(grid.column_keys))],
        "rows": rows,
        "notes": [[letters[note], note] for note in notes],
        "remarks": list(table.remarks),
    }


def _label(board: Leaderboard, index: int) -> dict[str, Any]:
    """A column of labels: its title, and whether a label needs it to be understood ("Mask ratio=0.6")."""
    name, title = board.grid.row_fields[index], board.table.columns[index].title
    is_setting = "." in name or any(is_number(key[index]) for key in board.grid.row_keys)
    return {"title": _TITLES.get(title, title), "named": is_setting}


def row_key(grid: ScoreTable, key: Key) -> str:
    """The row's name in addresses, which depends on nothing but its setting."""
    text = repr([pair for pair in zip(grid.row_fields, key, strict=True) if pair[1] not in (None, "")])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _column(board: Leaderboard, index: int, letters: Mapping[str, str]) -> dict[str, Any]:
    key = board.grid.column_keys[index]
    score = next(score for score in board.grid.column(key) if score is not None)
    first, shown = score.shared, board.table.columns[board.label_columns + index]
    return {
        "title": shown.title,
        "task": first["task"],
        "metric": first["metric"],
        "short": describe_metric(first["task"], first["metric"]).label,
        "protocol": first["protocol"],
        "label": board.grid.labels[first["protocol"]][0],
        "unit": first["unit"],
        "higher": bool(first["higher_is_better"]),
        "primary": bool(first["primary"]),
        "headline": is_default_metric(first["task"], first["metric"], first["primary"]),
        "chance": first["chance"],
        "notes": [letters[note] for note in shown.notes],
    }


def _pretraining(first: Mapping[str, Any]) -> str:
    if not first["pretrain_steps"] and first["final"]:
        return "none"
    return f"{first['pretrain_dataset']}, {describe_epochs(first)}"


def _published(score: Score) -> dict[str, Any]:
    """The authors' number under the same protocol, if there is one."""
    rows = load_author_numbers(score.shared["method"])
    if not rows or not score.shared["protocol_name"] or score.problem:
        return {}
    number = find_published(score.shared, rows).number
    if number is None:
        return {}
    return {"published": {"value": number["value"], "source": format_source(number)}}
