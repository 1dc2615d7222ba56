"""Tables for a terminal."""

from __future__ import annotations

from mimbench.report.tables.render.notes import lines_below, with_letters
from mimbench.report.tables.render.numbers import cell_text, factor_out_n
from mimbench.report.tables.table import Cell, Table
from mimbench.text import align_columns

_MARKS = {"": "{}", "best": "*{}*", "similar": "_{}_", "second": "_{}_"}
_LETTERS = " [{}]"


def render_text(table: Table) -> str:
    """Columns padded with spaces, a rule below the head, remarks and footnotes below the table."""
    table, shows_n = factor_out_n(table)

    def show(cell: Cell) -> str:
        return with_letters(table, _MARKS[cell.mark].format(cell_text(cell, shows_n)), cell.notes, _LETTERS)

    head = [with_letters(table, column.title, column.notes, _LETTERS) for column in table.columns]
    rows = [head, *([show(cell) for cell in row] for row in table.rows)]
    lines = align_columns(rows)
    if len(table.blocks) > 1:
        lines.insert(2 + table.controls, lines[1])
    title = [table.title, ""] if table.title else []
    below = lines_below(table, "[{}]", _MARKS, str)
    return "\n".join([*title, *lines, *([""] if below else []), *below]) + "\n"
