"""Tables of published numbers: listed, or laid out as a paper prints them with our own beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.report.published.numbers import LAST_EPOCH, Published, load_published, select_matching, to_plugin_name
from mimbench.report.records.frame import to_rows
from mimbench.report.scores.score import range_problem
from mimbench.report.scores.statistics import Summary, summarise
from mimbench.report.tables.layouts import Layout
from mimbench.report.tables.table import ABSENT, Cell, Column, Table, mark_best, spread_text

Row = Mapping[str, Any]
Key = tuple[Any, ...]
_TITLES = {"epochs": "epochs", "params_m": "M parameters", "pretrain_data": "pretrained on", "resolution": "px"}
_LESS = frozenset(("error", "hours", "cost", "FLOPs"))
"""Published metrics of which less is better."""


def build_published_table(
    methods: Sequence[str] = (), tasks: Sequence[str] = (), metrics: Sequence[str] = (), encoders: Sequence[str] = ()
) -> Table:
    """The published results of these methods (as plugins are called: simmim, moco-v3) and tasks, one a row.

    Numbers that a paper only quotes from another are left out.

    Raises:
        InputError: a name that no published number has.
    """
    rows = [row for row in to_rows(load_published()) if not row["study"]]
    chosen = (
        ("method", methods, to_plugin_name),
        ("task", tasks, str),
        ("metric", metrics, str),
        ("encoder", encoders, str),
    )
    for column, names, called in chosen:
        known = {called(row[column]) for row in rows}
        for name in names:
            if name not in known:
                raise InputError(f"no published number has the {column} {name!r}{nearest(name, known)}")
        rows = [row for row in rows if not names or called(row[column]) in names]
    own = [row for row in rows if row["reported"] != "quoted"]
    labels = ("method", "encoder", "pretrain_data", "epochs", "task", "dataset", "resolution")
    columns = [
        *(Column(_TITLES.get(name, name)) for name in labels),
        Column("metric"),
        Column("published", ("value",)),
        *(Column(title) for title in ("reported", "how", "source")),
    ]
    shown = [
        (
            *(Cell(_shown(row[name])) for name in (*labels, "metric")),
            _published_cell(row),
            Cell(row["reported"]),
            Cell(_how(row)),
            Cell(f"{row['paper']}, {row['source']}"),
        )
        for row in own
    ]
    left = len(rows) - len(own)
    told = "in percent; own: by the method's authors; repro: run again by others; re-eval: official weights, by others"
    quoted = f"; {left} that are quoted from these are left out" if left else ""
    return Table(tuple(columns), tuple(shown), remarks=(told + quoted, LAST_EPOCH))


def list_layout_cells(layout: Layout) -> set[tuple[str, str]]:
    """(method, task) of all that a layout shows, as plugins are called."""
    return {(to_plugin_name(row["method"]), row["task"]) for row in _chosen(layout)}


def build_layout_table(layout: Layout, records: pd.DataFrame | None = None) -> Table:
    """A paper's table from published numbers, with a column of our own beside each that has matching records.

    Args:
        layout: see `read_layout`.
        records: a frame; None: published numbers alone.

    Raises:
        InputError: a layout that selects nothing, or several numbers for one cell.
    """
    rows = _chosen(layout)
    places: dict[tuple[Key, Key], Row] = {}
    for row in rows:
        place = tuple(tuple(row[name] for name in fields) for fields in (layout.rows, layout.columns))
        if place in places:
            raise InputError(f"layout {layout.title!r} has two numbers in one cell: {_called(row)} of {row['paper']}")
        places[place[0], place[1]] = row
    labels = list(dict.fromkeys(key for key, _ in places))
    names = {to_plugin_name(row["method"]) for row in rows}
    ours = to_rows(records[records["method"].isin(names)]) if records is not None else []
    columns = [Column(_TITLES.get(name, name)) for name in layout.rows]
    cells = [[Cell(_shown(key[index])) for key in labels] for index in range(len(layout.rows))]
    found_any = False
    for key in dict.fromkeys(column for _, column in places):
        numbers = [places.get((label, key)) for label in labels]
        title = " ".join(_shown(value) for value in key)
        column = [_published_cell(row) if row else Cell() for row in numbers]
        if layout.best == "column":
            scores = [Summary(1, row["value"]) if row else None for row in numbers]
            column = mark_best(column, scores, higher_is_better=not _less_is_better(numbers))
        columns.append(Column(title, ("published",)))
        cells.append(column)
        own = [_own_cell(row, ours) if row else Cell() for row in numbers]
        if any(cell.numbers or cell.notes for cell in own):
            found_any = True
            columns.append(Column("ours", ("mean", "sd", "n", "difference"), of=title))
            cells.append(own)
    return Table(tuple(columns), tuple(zip(*cells, strict=True)), layout.title, _remarks(layout, rows, found_any))


def _less_is_better(numbers: Sequence[Row | None]) -> bool:
    return any(row["metric"] in _LESS for row in numbers if row)


def _chosen(layout: Layout) -> list[dict[str, Any]]:
    """The published rows that a layout shows, in the order of its `where` tables."""
    known = set(Published.model_fields)
    for name in (*layout.rows, *layout.columns, *(name for table in layout.where for name in table)):
        if name not in known:
            raise InputError(f"layout {layout.title!r}: unknown field {name!r}{nearest(name, known)}")
    everything = to_rows(load_published())
    rows: list[dict[str, Any]] = []
    for table in layout.where:
        found = [row for row in everything if all(_is(row[name], value) for name, value in table.items())]
        if not found:
            raise InputError(f"layout {layout.title!r}: no published number has {table}")
        rows += [row for row in found if row not in rows]
    return rows


def _is(value: Any, wanted: Any) -> bool:
    value = "" if value is None else value
    return value in wanted if isinstance(wanted, list) else value == wanted


def _published_cell(row: Row) -> Cell:
    value = row["value"]
    text = f"{value:.1f}" if round(value, 1) == value else f"{value:g}"
    return Cell(text + "×" * (row["unit"] == "times"), (value,), notes=_doubts(row))


def _doubts(row: Row) -> tuple[str, ...]:
    return (row["doubt"],) if row["doubt"] else ()


def _own_cell(row: Row, records: Sequence[Row]) -> Cell:
    """Our mean where records measured the same; they are never averaged over different settings."""
    same = select_matching(row, records)
    settings = {(record["pretraining"], record["protocol"]) for record in same}
    if not same:
        return Cell()
    if len(settings) > 1:
        return Cell(notes=(f"{len(settings)} of our settings match; they are not averaged",))
    problem = next(filter(None, (range_problem(record, record["value"]) for record in same)), "")
    if problem:
        return Cell(notes=(problem,))
    score = summarise([record["value"] for record in same])
    difference = score.mean - row["value"]
    text = f"{spread_text(score)}, {difference:+.1f}".replace("-", "−")
    return Cell(text, (score.mean, score.sd, score.n, difference))


def _remarks(layout: Layout, rows: Sequence[Row], ours: bool) -> tuple[str, ...]:
    papers = "; ".join(dict.fromkeys(f"{row['paper']}, {row['source']}" for row in rows))
    units = dict.fromkeys(row["unit"] for row in rows)
    told = ", in percent" if list(units) == ["percent"] else ", scores in percent" if "percent" in units else ""
    remarks = [f"published{told}: {papers}", *layout.notes, LAST_EPOCH]
    if layout.best == "column":
        remarks.append("{best} and {second} of each column")
    if ours:
        remarks.append("ours: mean ± seed sd (n seeds), difference to the published number")
    return tuple(remarks)


def _how(row: Row) -> str:
    protocol = f"as protocol {row['protocol']}" if row["protocol"] else ""
    return "; ".join(filter(None, (row["detail"], protocol))) or ABSENT


def _called(row: Row) -> str:
    return " ".join(_shown(row[name]) for name in ("method", "encoder", "task", "metric"))


def _shown(value: Any) -> str:
    return ABSENT if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
