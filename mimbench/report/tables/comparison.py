"""Comparison tables of records: rows and columns by choice; nothing is averaged but the seeds of one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from mimbench.recipe import AT_EPOCH
from mimbench.report.records.frame import is_early
from mimbench.report.records.protocols import label_protocols
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.collect import ScoreTable, collect_scores, filter_rows
from mimbench.report.scores.fields import format_value
from mimbench.report.scores.score import Key
from mimbench.report.tables.extra_columns import baseline_column, published_column, rank_column
from mimbench.report.tables.table import Cell, Column, Table, mark_best, spread_text

_OF_A_SEED = {"seed", "checkpoint", "weights_sha256", "id", "file"}
"""Fields that tell seeds apart."""


def build_comparison(tidy: pd.DataFrame, choice: Choice | None = None) -> Table:
    """The table of a frame (see `load_records`).

    By default a row is a method with what was varied, a column a metric of a task under one protocol. Seeds are
    summed up only where all else that shaped the weights is equal: fields that are needed to keep settings apart are
    added to the chosen ones. Scores of different protocols never share a column (or a row, where columns are not
    tasks). A cell is "mean ± seed sd (n seeds)"; one seed has no deviation. The best and the second of what is
    comparable are marked, and the best with a footnote where it is not told apart from the next.

    Raises:
        InputError: nothing chosen, or an unknown name.
    """
    choice = choice or Choice()
    chosen = filter_rows(tidy, choice)
    if choice.baseline:
        choice.baseline.check(chosen)
    table = build_table(collect_scores(chosen, choice), label_protocols(chosen), choice)
    return replace(table, remarks=(*table.remarks, *_left_out(tidy, choice, chosen)))


def _left_out(tidy: pd.DataFrame, choice: Choice, chosen: pd.DataFrame) -> tuple[str, ...]:
    early = filter_rows(tidy, replace(choice, epochs=True))["id"].nunique() - chosen["id"].nunique()
    if not early:
        return ()
    records, them = ("records", "them") if early > 1 else ("record", "it")
    by_column = "method" in choice.column_fields
    shown = ",".join([*(choice.column_fields if by_column else choice.row_fields or ("method",)), AT_EPOCH])
    option = "--columns" if by_column else "--rows"
    return (f"not shown: {early} {records} of earlier epochs of these pretrainings ({option} {shown} shows {them})",)


def build_table(grid: ScoreTable, labels: Mapping[str, tuple[str, str]], choice: Choice) -> Table:
    """The table of scores that are gathered already; labels: of their protocols, see `label_protocols`."""
    cells = _cells(grid, choice)
    columns, parts = _label_columns(grid, labels)
    for key, title, notes in _titles(grid, labels):
        columns.append(Column(title, ("mean", choice.spread, "n"), notes))
        parts.append([cells[row, key] for row in grid.row_keys])
        scores = grid.column(key)
        if choice.baseline:
            beside = baseline_column(choice.baseline, title, scores, list(grid.scores.values()))
            parts += [found for _, found in beside]
            columns += [column for column, _ in beside]
        if choice.published:
            column, found = published_column(title, scores)
            columns.append(column)
            parts.append(found)
    if choice.ranks:
        column, found = rank_column([grid.column(key) for key in grid.column_keys], grid.column_fields)
        columns.append(column)
        parts.append(found)
    rows = tuple(zip(*parts, strict=True))
    return Table(tuple(columns), rows, remarks=_remarks(cells, grid, choice))


def _cells(grid: ScoreTable, choice: Choice) -> dict[tuple[Key, Key], Cell]:
    """Each score as text, the best and second of those that are comparable marked."""
    cells = {(row, column): Cell() for row in grid.row_keys for column in grid.column_keys}
    groups: dict[Key, list[tuple[Key, Key]]] = {}
    by_column = {"task", "metric"} <= set(grid.column_fields)
    for place in cells:
        if place not in grid.scores:
            continue
        score = grid.scores[place]
        summary, first = score.summary, score.shared
        width = summary.sd if choice.spread == "sd" else summary.se
        if score.problem:
            cells[place] = Cell(f"{summary.mean:g}", (summary.mean, None, summary.n), notes=(score.problem,))
            continue
        cells[place] = Cell(
            spread_text(summary, choice.spread, 1 if first["unit"] == "percent" else 3),
            (summary.mean, width, summary.n),
        )
        what: Key = (first["task"], first["metric"], first["protocol"])
        if _by_seed(grid):  # a method's seeds are no contenders of each other
            what = (*what, first["seed"])
        groups.setdefault((place[1], *what) if by_column else what, []).append(place)
    for group in groups.values():
        # The way there is no contender of where it led.
        places = [place for place in group if not is_early(grid.scores[place].shared)] or group
        summaries = [grid.scores[place].summary for place in places]
        higher = bool(grid.scores[places[0]].shared["higher_is_better"])
        names = _names(grid, places)
        found = mark_best([cells[place] for place in places], summaries, higher, names)
        cells |= dict(zip(places, found, strict=True))
    return cells


def _by_seed(grid: ScoreTable) -> bool:
    """Whether seeds are shown one by one."""
    return bool(_OF_A_SEED & {*grid.row_fields, *grid.column_fields})


def _names(grid: ScoreTable, places: Sequence[tuple[Key, Key]]) -> list[str]:
    """Scores in words, for footnotes: all that rows and columns tell, but for what they share."""
    fields = [grid.scores[place].fields for place in places]
    several = {name: {repr(each[name]) for each in fields} for name in fields[0]}
    of_method = len(several.get("method", ())) == len(fields)
    shown = ["method"] if of_method else [name for name, values in several.items() if len(values) > 1]
    return [" ".join(_worded(name, each[name]) for name in shown if each[name] not in (None, "")) for each in fields]


def _label_columns(grid: ScoreTable, labels: Mapping[str, tuple[str, str]]) -> tuple[list[Column], list[list[Cell]]]:
    """Columns of what tells rows apart; the protocol only where a task has several."""
    columns, cells = [], []
    several = len(labels) > len({score.shared["task"] for score in grid.scores.values()})
    for index, name in enumerate(grid.row_fields):
        if name == "protocol" and not several:
            continue
        columns.append(Column(name))
        values = [row[index] for row in grid.row_keys]
        if name == "protocol":
            notes = [labels[value][1] for value in values]
            cells.append(
                [
                    Cell(labels[value][0], notes=(note,) if note else ())
                    for value, note in zip(values, notes, strict=True)
                ]
            )
        else:
            cells.append([Cell(_label(name, value)) for value in values])
    return columns, cells


def _label(name: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    return format_value(value)[:6] if name == "pretraining" else format_value(value)


def _titles(grid: ScoreTable, labels: Mapping[str, tuple[str, str]]) -> list[tuple[Key, str, tuple[str, ...]]]:
    """(column, title, footnotes): the protocol in the title where it tells columns apart, else in a footnote."""
    found = []
    bare = [_title(grid, key) for key in grid.column_keys]
    for key, title in zip(grid.column_keys, bare, strict=True):
        notes: tuple[str, ...] = ()
        if grid.column_fields[-1] == "protocol":
            label, note = labels[key[-1]]
            title = f"{title} ({label})" if bare.count(title) > 1 else title
            notes = (note,) if note else ()
        found.append((key, title, notes))
    return found


def _title(grid: ScoreTable, key: Key) -> str:
    told = dict(zip(grid.column_fields, key, strict=True))
    told.pop("protocol", None)
    parts = []
    if "metric" in told:
        unit = next(score.shared["unit"] for (_, column), score in grid.scores.items() if column == key)
        metric = str(told.pop("metric")) + (f" [{unit}]" if unit != "percent" else "")
        parts.append(f"{told.pop('task')}: {metric}" if "task" in told else metric)
    given = {name: value for name, value in told.items() if value not in (None, "")}
    parts += [_worded(name, value) for name, value in (given if parts or given else told).items()]
    return ", ".join(parts)


def _worded(name: str, value: Any) -> str:
    """A field's value outside of a column of its own: numbers and settings with their name."""
    plain = "." not in name and not isinstance(value, int | float)
    return _label(name, value) if plain else f"{name}={_label(name, value)}"


def _untold(grid: ScoreTable) -> str:
    """Task and metric where neither rows nor columns tell these."""
    first = next(iter(grid.scores.values())).shared
    fields = {*grid.row_fields, *grid.column_fields}
    return ": ".join(str(first[name]) for name in ("task", "metric") if name not in fields)


def _remarks(cells: Mapping[tuple[Key, Key], Cell], grid: ScoreTable, choice: Choice) -> tuple[str, ...]:
    units = {score.shared["unit"] for score in grid.scores.values()}
    remarks = [f"all: {untold}"] if (untold := _untold(grid)) else []
    best = {place for place, cell in cells.items() if cell.mark}
    if best:
        of_column = {"task", "metric"} <= set(grid.column_fields)
        early = {place for place, score in grid.scores.items() if is_early(score.shared)}
        where = " where the end is there" if early & best else ""
        remarks.append(
            "{best} and {second} of each "
            + ("column" if of_column else "metric and protocol")
            + (", seed by seed" if _by_seed(grid) else "")
            + (f", earlier epochs aside{where}" if early and early != set(grid.scores) else "")
        )
    if "percent" in units:
        remarks.append("in percent" + (" where no other unit is given" if len(units) > 1 else ""))
    if any(score.summary.n > 1 for score in grid.scores.values()):
        spread = (
            "seed sd (sample standard deviation over" if choice.spread == "sd" else "s.e. of the mean (seed sd / √n,"
        )
        remarks.append(f"±: {spread} n seeds)")
    if any(score.summary.n == 1 for score in grid.scores.values()):
        remarks.append("without ±: one seed")
    return ("; ".join(remarks),) if remarks else ()
