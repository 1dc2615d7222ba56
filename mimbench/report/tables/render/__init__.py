"""Tables as text, Markdown, CSV, HTML and LaTeX: one module per format. Every format escapes all text of users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mimbench.errors import InputError, nearest
from mimbench.report.tables.render.csv import render_csv
from mimbench.report.tables.render.html import render_html
from mimbench.report.tables.render.latex import LatexOptions, render_latex
from mimbench.report.tables.render.markdown import render_markdown
from mimbench.report.tables.render.text import render_text
from mimbench.report.tables.table import Cell, Column, Table
from mimbench.text import visible

FORMATS: dict[str, Callable[..., str]] = {
    "text": render_text,
    "markdown": render_markdown,
    "csv": render_csv,
    "html": render_html,
    "latex": render_latex,
}


def render(table: Table, format: str, latex: LatexOptions | None = None) -> str:
    """The table in one of FORMATS, with a line break at its end.

    Args:
        latex: how LaTeX sets it; of no meaning for other formats.

    Raises:
        InputError: another format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown table format {format!r}{nearest(format, FORMATS)}")
    visible_table = _with_visible_text(table)
    return render_latex(visible_table, latex) if format == "latex" and latex else FORMATS[format](visible_table)


def _with_visible_text(table: Table) -> Table:
    """The table with its control characters made visible: no format prints them, and each cell stays one line."""
    return replace(
        table,
        columns=tuple(map(_visible_column, table.columns)),
        rows=tuple(tuple(map(_visible_cell, row)) for row in table.rows),
        title=visible(table.title),
        remarks=tuple(map(visible, table.remarks)),
        advice=tuple(map(visible, table.advice)),
    )


def _visible_column(column: Column) -> Column:
    notes = tuple(map(visible, column.notes))
    return replace(column, title=visible(column.title), notes=notes, main=visible(column.main))


def _visible_cell(cell: Cell) -> Cell:
    content = visible(cell.content) if isinstance(cell.content, str) else cell.content
    return replace(cell, content=content, notes=tuple(map(visible, cell.notes)))
