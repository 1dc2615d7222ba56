"""`mimbench table`: which table is asked for, as text.

What needs pydantic is imported where it is asked for: a table of records starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mimbench.display import check_labels
from mimbench.errors import InputError, nearest
from mimbench.report.records.frame import build_frame, load_records
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.failed import FailedCells, match_choice
from mimbench.report.scores.names import NAMES
from mimbench.report.tables.comparison import build_comparison, build_comparisons
from mimbench.report.tables.render import FORMATS, render
from mimbench.report.tables.render.latex import LatexOptions
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
    latex: LatexOptions | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> str:
    """The table as text.

    `published` without results lists published numbers. A layout takes records if there are some. Cells that failed
    are listed beneath the table, or passed to `warn` if the format has no room for remarks. CSV has the keys of the
    records, and ablations in the same table; the other formats have the names of papers.

    Args:
        format: one of `render.FORMATS`; `choose_format` gives it.
        latex: how LaTeX sets the table. The table of ablations gets neither its caption nor its label.

    Raises:
        InputError: anything that cannot be shown.
    """
    if layout == "list":
        return _layouts()
    if layout:
        table, failed = _laid_out(layout, choice, results)
        return _with_failed([table], failed, format, latex, warn)
    if choice.published and results is None:
        return render(_listed(choice), format, latex)
    return _with_failed(*_compared(choice, results or DEFAULT_RESULTS, format), format, latex, warn)


def format_records(records: Sequence[Record]) -> str:
    """The comparison table of records at hand, for the terminal."""
    return render(
        build_comparison(build_frame([(None, record.as_json()) for record in records]), Choice(epochs=True), NAMES),
        "text",
    )


def _with_failed(
    tables: Sequence[Table],
    failed: Sequence[str],
    format: str,
    latex: LatexOptions | None,
    warn: Callable[[str], None],
) -> str:
    """The tables, with the cells that failed below the first one."""
    first, *others = tables
    if format != "csv":
        first = replace(first, remarks=(*first.remarks, *failed))
    else:
        for line in failed:
            warn(line)
    options_of_others = replace(latex, caption="", label="") if latex else None
    return "\n".join([render(first, format, latex), *(render(table, format, options_of_others) for table in others)])


def _compared(choice: Choice, results: Path, format: str) -> tuple[Sequence[Table], Sequence[str]]:
    """The comparison and its ablations, and what to say of the cells that failed."""
    tidy = load_records(results, choice.paths, earlier_epochs=True)
    check_labels(tidy["method"])
    failed = FailedCells(results, set(tidy["id"]))
    failed.require_records(choice, tidy)
    tables = [build_comparison(tidy, choice)] if format == "csv" else build_comparisons(tidy, choice, NAMES)
    return tables, failed.remarks(match_choice(choice, tidy))


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
