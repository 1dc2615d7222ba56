"""Tables of published numbers: listed, or laid out as in a paper with our own numbers next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mimbench.display import describe_metric, describe_task
from mimbench.errors import InputError, nearest
from mimbench.report.published.nearest import describe_nearest
from mimbench.report.published.numbers import (
    LAST_EPOCH,
    Published,
    published_rows,
    select_matching,
    to_plugin_name,
)
from mimbench.report.records.frame import to_rows
from mimbench.report.scores.score import Key, range_problem
from mimbench.report.scores.statistics import best_and_next, summarise
from mimbench.report.tables.layouts import Layout
from mimbench.report.tables.table import Cell, Column, Table, mark_cells
from mimbench.report.tables.values import MeanAndDifference, PublishedDifference, PublishedNumber

Row = Mapping[str, Any]
_TITLES = {"epochs": "epochs", "params_m": "M parameters", "pretrain_data": "pretrained on", "resolution": "px"}
_LOWER_IS_BETTER = frozenset(("error", "hours", "cost", "FLOPs"))
"""Published metrics of which a lower value is better."""
_LABELS = ("method", "encoder", "pretrain_data", "epochs", "task", "dataset", "resolution")


def build_published_table(
    methods: Sequence[str] = (), tasks: Sequence[str] = (), metrics: Sequence[str] = (), encoders: Sequence[str] = ()
) -> Table:
    """Published numbers, one per row, without ablations and without numbers that a paper quotes from another.

    Args:
        methods: names of plugins, such as simmim or moco-v3; () stands for all, here and below.
        tasks: names of plugins.
        metrics: as tasks name them.
        encoders: as papers name them.

    Raises:
        InputError: a name that no published number has.
    """
    rows = [row for row in published_rows() if not row["study"]]
    filters = (
        ("method", methods, to_plugin_name),
        ("task", tasks, str),
        ("metric", metrics, str),
        ("encoder", encoders, str),
    )
    for field, names, normalise in filters:
        known = {normalise(row[field]) for row in rows}
        for name in names:
            if name not in known:
                raise InputError(f"no published number has the {field} {name!r}{nearest(name, known)}")
        rows = [row for row in rows if not names or normalise(row[field]) in names]
    originals = [row for row in rows if row["reported"] != "quoted"]
    columns = (
        *(Column(_TITLES.get(name, name)) for name in _LABELS),
        Column("metric"),
        Column("published", ("value",)),
        *(Column(title) for title in ("reported", "how", "source")),
    )
    explanation = (
        "in percent; own: by the method's authors; repro: run again by others; re-eval: official weights, by others"
    )
    if quoted := len(rows) - len(originals):
        explanation += f"; {quoted} quoted duplicate{'s' * (quoted > 1)} omitted"
    return Table(columns, tuple(map(_published_row, originals)), remarks=(explanation, LAST_EPOCH))


def _published_row(row: Row) -> tuple[Cell, ...]:
    return (
        *(_label_cell(row[name]) for name in (*_LABELS, "metric")),
        _published_cell(row),
        Cell(row["reported"]),
        Cell(_how(row)),
        Cell(f"{row['paper']}, {row['source']}"),
    )


def list_layout_cells(layout: Layout) -> set[tuple[str, str]]:
    """(method, task) of each number that a layout shows, as plugins are called."""
    return {(to_plugin_name(row["method"]), row["task"]) for row in _select_rows(layout)}


def build_layout_table(layout: Layout, records: pd.DataFrame | None = None) -> Table:
    """A paper's table of published numbers. A column of ours follows each column for which records match.

    Args:
        layout: see `read_layout`.
        records: a frame; None: published numbers only.

    Raises:
        InputError: a layout that selects nothing, or several numbers for one cell.
    """
    rows = _select_rows(layout)
    places = _place_rows(layout, rows)
    row_keys = list(dict.fromkeys(row for row, _ in places))
    columns = [Column(_TITLES.get(name, name)) for name in layout.rows]
    columns_of_cells = [[_label_cell(key[index]) for key in row_keys] for index in range(len(layout.rows))]
    if layout.difference:
        label = " − ".join(layout.difference)
        columns_of_cells = [[*cells, Cell("" if index else label)] for index, cells in enumerate(columns_of_cells)]

    methods = {to_plugin_name(row["method"]) for row in rows}
    ours = to_rows(records[records["method"].isin(methods)]) if records is not None else []
    has_ours = False
    for column_key in dict.fromkeys(column for _, column in places):
        numbers = [places.get((row_key, column_key)) for row_key in row_keys]
        title = _column_title(layout, next(row for row in numbers if row))
        columns.append(Column(title, ("published",)))
        columns_of_cells.append([*_published_column(layout, numbers), *_difference(layout, row_keys, numbers)])
        our_cells = [_our_cell(row, ours) if row else Cell() for row in numbers]
        if any(cell.content or cell.notes for cell in our_cells):
            has_ours = True
            columns.append(Column("ours", ("mean", "sd", "n", "difference"), main=title))
            columns_of_cells.append([*our_cells, *([Cell()] if layout.difference else [])])
    remarks = _remarks(layout, rows, has_ours)
    if records is not None and not has_ours:
        remarks += tuple(filter(None, [describe_nearest(rows, ours)]))
    return Table(tuple(columns), tuple(zip(*columns_of_cells, strict=True)), layout.title, remarks)


def _column_title(layout: Layout, row: Row) -> str:
    """What heads a column of numbers. row: any of them."""
    words = []
    for field in layout.columns:
        value = row[field]
        if field == "task":
            value = describe_task(value).label or value
        elif field == "metric":
            display = describe_metric(row["task"], value)
            # "Linear probe top-1" repeats the task, "AP^box" does not.
            repeats = display.column.startswith(describe_task(row["task"]).label)
            value = display.label if repeats else display.column or display.label
        if value not in (None, ""):
            words.append(_show(value))
    return " ".join(words) or "-"


def _place_rows(layout: Layout, rows: Sequence[Row]) -> dict[tuple[Key, Key], Row]:
    """Published rows by row and column of the layout's table."""
    places: dict[tuple[Key, Key], Row] = {}
    for row in rows:
        place = tuple(row[name] for name in layout.rows), tuple(row[name] for name in layout.columns)
        if place in places:
            number = " ".join(_show(row[name]) for name in ("method", "encoder", "task", "metric"))
            raise InputError(f"layout {layout.title!r} has two numbers in one cell: {number} of {row['paper']}")
        places[place] = row
    return places


def _published_column(layout: Layout, numbers: Sequence[Row | None]) -> list[Cell]:
    cells = [_published_cell(row) if row else Cell() for row in numbers]
    if layout.best != "column":
        return cells
    scores = [{0: float(row["value"])} if row else None for row in numbers]
    lower_is_better = any(row["metric"] in _LOWER_IS_BETTER for row in numbers if row)
    verdict = best_and_next(scores, higher_is_better=not lower_is_better)
    return mark_cells(cells, {"best": verdict.best, "second": verdict.second})


def _difference(layout: Layout, row_keys: Sequence[Key], numbers: Sequence[Row | None]) -> list[Cell]:
    """The last cell of a column of a layout with a row of differences; none without one.

    Raises:
        InputError: a label that no row has, or several.
    """
    if layout.difference is None:
        return []
    values = []
    for label in layout.difference:
        places = [place for place, key in enumerate(row_keys) if key[0] == label]
        if len(places) != 1:
            raise InputError(
                f"layout {layout.title!r}: difference: {len(places)} rows are called {label!r}; name one row each"
                f"{nearest(label, [str(key[0]) for key in row_keys]) if not places else ''}"
            )
        number = numbers[places[0]]
        values.append(number["value"] if number else None)
    first, second = values
    return [Cell() if first is None or second is None else Cell(PublishedDifference(first - second))]


def _select_rows(layout: Layout) -> list[Row]:
    """The published rows that a layout shows, in the order of its `where` tables."""
    known = set(Published.model_fields)
    for name in (*layout.rows, *layout.columns, *(name for table in layout.where for name in table)):
        if name not in known:
            raise InputError(f"layout {layout.title!r}: unknown field {name!r}{nearest(name, known)}")
    selected: list[Row] = []
    for table in layout.where:
        matching = [
            row for row in published_rows() if all(_has_value(row[name], value) for name, value in table.items())
        ]
        if not matching:
            raise InputError(f"layout {layout.title!r}: no published number has {table}")
        selected += [row for row in matching if row not in selected]
    return selected


def _has_value(value: Any, expected: Any) -> bool:
    """expected: a value, or a list of alternatives; "" stands for a missing value."""
    value = "" if value is None else value
    return value in expected if isinstance(expected, list) else value == expected


def _published_cell(row: Row) -> Cell:
    return Cell(PublishedNumber(row["value"], row["unit"]), notes=(row["doubt"],) if row["doubt"] else ())


def _our_cell(row: Row, records: Sequence[Row]) -> Cell:
    """Our mean if records measured what a published row did; different settings are never averaged."""
    matching = select_matching(row, records)
    if not matching:
        return Cell()
    settings = {(record["pretraining"], record["protocol"]) for record in matching}
    if len(settings) > 1:
        return Cell(notes=(f"{len(settings)} of our settings match; they are not averaged",))
    problems = (range_problem(record, record["value"]) for record in matching)
    if problem := next(filter(None, problems), ""):
        return Cell(notes=(problem,))
    score = summarise([record["value"] for record in matching])
    return Cell(MeanAndDifference(score, score.mean - row["value"]))


def _remarks(layout: Layout, rows: Sequence[Row], has_ours: bool) -> tuple[str, ...]:
    papers = "; ".join(dict.fromkeys(f"{row['paper']}, {row['source']}" for row in rows))
    units = {row["unit"] for row in rows}
    unit = ""
    if units == {"percent"}:
        unit = ", in percent"
    elif "percent" in units:
        unit = ", scores in percent"
    remarks = [f"published{unit}: {papers}", *layout.notes, LAST_EPOCH]
    if layout.best == "column":
        remarks.append("{best} and {second} of each column")
    if has_ours:
        remarks.append("ours: mean ± std over n seeds, difference from the published number")
    return tuple(remarks)


def _how(row: Row) -> str | None:
    """How a number was measured: its detail, and the protocol of ours that is the same."""
    protocol = f"as protocol {row['protocol']}" if row["protocol"] else ""
    return "; ".join(filter(None, (row["detail"], protocol))) or None


def _label_cell(value: Any) -> Cell:
    return Cell(None if value is None or value == "" else _show(value))


def _show(value: Any) -> str:
    """A field of a published row as text."""
    if value is None or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
