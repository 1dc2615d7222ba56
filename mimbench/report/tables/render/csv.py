"""Tables as CSV: each number in a separate column, no marks, remarks or footnotes."""

from __future__ import annotations

import csv
import io

from mimbench.report.tables.table import Cell, Column, Table
from mimbench.text import spreadsheet_text


def render_csv(table: Table) -> str:
    """A header line, then one line per row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_field(title) for column in table.columns for title in _titles(column)])
    for row in table.rows:
        cells = zip(table.columns, row, strict=True)
        writer.writerow([_field(value) for column, cell in cells for value in _values(column, cell)])
    return out.getvalue()


def _titles(column: Column) -> list[str]:
    """Titles of the file's columns for one column of the table."""
    title = f"{column.main} {column.title}".strip()
    return [title, *(f"{title} {name}" for name in column.number_names[1:])]


def _values(column: Column, cell: Cell) -> list[object]:
    """As many values as `_titles` has titles."""
    if not column.has_numbers:
        return [cell.content]
    if cell.content is None or isinstance(cell.content, str):
        return [None] * len(column.number_names)
    return list(cell.content.numbers)


def _field(value: object) -> object:
    """A value for the csv module. Floats have twelve digits: sums of floats end in digits like 58.599999999999994."""
    if value is None:
        return ""
    if isinstance(value, str):
        return spreadsheet_text(value)
    return float(f"{value:.12g}") if isinstance(value, float) else value
