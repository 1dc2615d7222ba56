"""The leaderboard as data: the comparison table of everything, with the runs behind each of its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mimbench.display import describe_metric
from mimbench.recipe import AT_EPOCH
from mimbench.report.published.numbers import epochs_in_words, find, own_numbers, reference, slug
from mimbench.report.records.frame import early_beside_end, is_early
from mimbench.report.records.protocols import protocol_labels
from mimbench.report.scores.collect import Choice, Grid, Key, Score, gathered, selected
from mimbench.report.tables.comparison import table_of
from mimbench.report.tables.table import Table

ROWS, COLUMNS = ("method", "encoder"), ("task", "metric")
LAST_RESORTS = ("pretraining", "checkpoint", "id")
_TITLES = {"pretraining": "pretraining's hash"}
"""The page has a column of its own that tells the pretraining in words."""


@dataclass(frozen=True)
class Board:
    """One table twice: as scores, and with the marks and footnotes that every format of it has."""

    grid: Grid
    table: Table
    labels: Mapping[str, tuple[str, str]]
    """(name, footnote) of each protocol."""
    early: frozenset[str]
    """Records of earlier epochs that have the end beside them."""

    @property
    def label_columns(self) -> int:
        return len(self.table.columns) - len(self.grid.columns)


def board_of(tidy: pd.DataFrame) -> Board:
    """A row for each method, encoder and pretraining; a column for each metric of each task under each protocol."""
    choice = Choice(
        rows=ROWS,
        columns=COLUMNS,
        metrics=tuple(dict.fromkeys(tidy["metric"])),
        epochs=True,
    )
    chosen = selected(tidy, choice)
    grid, labels = gathered(chosen, choice), protocol_labels(chosen)
    early = frozenset(chosen.loc[early_beside_end(chosen), "id"])
    return Board(grid, table_of(grid, labels, choice), labels, early)


def leaderboard(board: Board, numbers: Mapping[str, int]) -> dict[str, Any]:
    """As the page reads it. `numbers`: of runs, by id."""
    grid, table, skip = board.grid, board.table, board.label_columns
    told = [index for index in range(skip) if grid.row_fields[index] != AT_EPOCH]  # in words with the pretraining
    notes = table.notes
    letters = dict(zip(notes, table.letters(notes), strict=True))
    published: dict[str, list[Mapping[str, Any]]] = {}
    for number in own_numbers():
        published.setdefault(slug(number["method"]), []).append(number)
    rows = []
    for key, cells in zip(grid.rows, table.rows, strict=True):
        row: dict[str, Any] = {"key": row_key(grid, key), "labels": [cells[index].text for index in told], "cells": []}
        rows.append(row)
        found = [grid.scores.get((key, column)) for column in grid.columns]
        scores = {index: score for index, score in enumerate(found) if score}
        for index, score in scores.items():
            cell = cells[skip + index]
            row["cells"].append(
                {
                    "column": index,
                    **numbers_of(score),
                    "mark": cell.mark,
                    "notes": [letters[note] for note in cell.notes],
                    "runs": [numbers[name] for name in score.records.values()],
                    **_published(score, published),
                }
            )
        first = next(iter(scores.values())).first
        row |= {"method": first["method"], "encoder": first["backbone"], "pretraining": _pretraining(first)}
        row["epoch"] = epochs_in_words(first) if is_early(first) else ""
        row["early"] = all(board.early.issuperset(score.records.values()) for score in scores.values())
    return {
        "labels": [_TITLES.get(title, title) for title in (table.columns[index].title for index in told)],
        "columns": [_column(board, index, letters) for index in range(len(grid.columns))],
        "rows": rows,
        "notes": [[letters[note], note] for note in notes],
        "remarks": list(table.remarks),
    }


def row_key(grid: Grid, key: Key) -> str:
    """The row's name in addresses: the same for the same setting, whatever else is in the results."""
    told = repr([pair for pair in zip(grid.row_fields, key, strict=True) if pair[1] not in (None, "")])
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def numbers_of(score: Score) -> dict[str, Any]:
    summary = score.summary
    interval = summary.interval
    return {
        "mean": summary.mean,
        "sd": summary.sd,
        "n": summary.n,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _column(board: Board, index: int, letters: Mapping[str, str]) -> dict[str, Any]:
    key = board.grid.columns[index]
    score = next(score for score in board.grid.column(key) if score is not None)
    first, shown = score.first, board.table.columns[board.label_columns + index]
    return {
        "title": shown.title,
        "task": first["task"],
        "metric": first["metric"],
        "protocol": first["protocol"],
        "label": board.labels[first["protocol"]][0],
        "unit": first["unit"],
        "higher": bool(first["higher_is_better"]),
        "primary": bool(first["primary"]),
        "headline": bool(first["primary"]) or describe_metric(first["task"], first["metric"]).is_headline,
        "chance": first["chance"],
        "notes": [letters[note] for note in shown.notes],
    }


def _pretraining(first: Mapping[str, Any]) -> str:
    if not first["pretrain_steps"] and not is_early(first):
        return "none"
    return f"{first['pretrain_dataset']}, {epochs_in_words(first)}"


def _published(score: Score, published: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The authors' own number under the same protocol, where there is one."""
    rows = published.get(score.first["method"], ())
    if not rows or not score.first["protocol_name"] or score.problem:
        return {}
    number = find(score.first, rows).number
    if number is None:
        return {}
    return {"published": {"value": number["value"], "source": reference(number)}}
