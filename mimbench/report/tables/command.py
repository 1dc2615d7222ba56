"""`mimbench table`: which table is asked for, as text.

What needs pydantic is imported where it is asked for: a table of records starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mimbench.errors import InputError, nearest
from mimbench.report.records.frame import build_frame, load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.failed import FailedCells, match_choice
from mimbench.report.tables.comparison import build_comparison
from mimbench.report.tables.render import FORMATS, render
from mimbench.report.tables.table import Table
from mimbench.store import DEFAULT_RESULTS
from mimbench.store.reading import record_files

if TYPE_CHECKING:
    from mimbench.store.record import Record

_SUFFIXES = {".txt": "text", ".md": "markdown", ".csv": "csv", ".html": "html", ".tex": "latex"}


def table_command(
    choice: Choice,
    *,
    results: Path | None,
    format: str,
    layout: str | None,
    warn: Callable[[str], None] = lambda line: None,
) -> str:
    """The table as text.

    `published` without results lists published numbers. A layout takes records if there are some. Cells that failed
    are listed beneath the table, or passed to `warn` if the format has no room for remarks.

    Args:
        format: one of `render.FORMATS`; `choose_format` gives it.

    Raises:
        InputError: anything that cannot be shown.
    """
    if layout == "list":
        return _layouts()
    if layout:
        return _with_failed(*_laid_out(layout, choice, results), format, warn)
    if choice.published and results is None:
        return render(_listed(choice), format)
    return _with_failed(*_compared(choice, results or DEFAULT_RESULTS), format, warn)


def format_records(records: Sequence[Record]) -> str:
    """The comparison table of records at hand, for the terminal."""
    return render(
        build_comparison(build_frame([(None, record.as_json()) for record in records]), Choice(epochs=True)), "text"
    )


def _with_failed(table: Table, failed: Sequence[str], format: str, warn: Callable[[str], None]) -> str:
    if format != "csv":
        return render(replace(table, remarks=(*table.remarks, *failed)), format)
    for line in failed:
        warn(line)
    return render(table, format)


def _compared(choice: Choice, results: Path) -> tuple[Table, Sequence[str]]:
    """The comparison, and what to say of the cells that failed."""
    paths = [name for name in (*choice.row_fields, *choice.column_fields) if "." in name]
    tidy = load_records(results, [*paths, *(choice.baseline.paths if choice.baseline else ())], earlier_epochs=True)
    failed = FailedCells(results, set(tidy["id"]))
    failed.require_records(choice, tidy)
    return build_comparison(tidy, choice), failed.remarks(match_choice(choice, tidy))


def _layouts() -> str:
    from mimbench.report.tables.layouts import layout_names, read_layout

    return "".join(f"{name:<24}{read_layout(name).title}\n" for name in layout_names())


def _listed(choice: Choice) -> Table:
    from mimbench.report.tables.papers import build_published_table

    _refuse_others(choice, "a list of published numbers; give --results", {"methods", "tasks", "metrics"})
    return build_published_table(choice.methods, choice.tasks, choice.named_metrics)


def _laid_out(name: str, choice: Choice, results: Path | None) -> tuple[Table, Sequence[str]]:
    """The layout, and what to say of its cells that failed."""
    from mimbench.report.tables.layouts import read_layout
    from mimbench.report.tables.papers import build_layout_table, list_layout_cells

    _refuse_others(choice, "a layout", set())
    layout = read_layout(name)
    folder = results or DEFAULT_RESULTS
    if results is None and not (folder.is_dir() and record_files(folder)):
        return build_layout_table(layout), ()
    tidy, measures = load_records(folder, earlier_epochs=True), list_layout_cells(layout)
    failed = FailedCells(folder, set(tidy["id"]))
    return build_layout_table(layout, tidy), failed.remarks(lambda cell: (cell.method, cell.task) in measures)


def _refuse_others(choice: Choice, what: str, allowed: set[str]) -> None:
    """Raise InputError if fields other than `allowed` are chosen: this kind of table would ignore them."""
    allowed = allowed | {"published", "spread"}
    flags = {
        "row_fields": "rows",
        "column_fields": "columns",
        "methods": "method",
        "tasks": "task",
        "metrics": "metric",
        "ranks": "rank",
    }
    names = [field.name for field in fields(Choice) if field.name not in allowed]
    flags_in_use = [f"--{flags.get(name, name)}" for name in names if getattr(choice, name)]
    if flags_in_use:
        raise InputError(f"{', '.join(flags_in_use)}: not for {what}")


def choose_format(format: str | None, output: Path | None) -> str:
    """The format of a table: `format`, or the format that the suffix of `output` stands for, or "text".

    Raises:
        InputError: an unknown format or suffix.
    """
    if format is None:
        suffix = output.suffix.lower() if output else ""
        if suffix and suffix not in _SUFFIXES:
            raise InputError(
                f"--output {output}: no table is a {suffix}; there are {', '.join(_SUFFIXES)}, or give --format"
            )
        return _SUFFIXES.get(suffix, "text")
    if format not in FORMATS:
        raise InputError(f"unknown table format {format!r}{nearest(format, FORMATS)}")
    return format
