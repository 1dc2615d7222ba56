"""Tables as lists of what a person reads in their cells."""

from __future__ import annotations

from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.tables.table import Cell, Table
from mimbench.report.tables.values import Mean


def rows_by_title(table: Table) -> list[dict[str, str]]:
    """Each row as column title -> text, without marks and footnotes. A mean of one seed has no n."""
    titles = [column.title for column in table.columns]
    texts = [[_text(cell) for cell in row] for row in table.rows]
    return [dict(zip(titles, row, strict=True)) for row in texts]


def _text(cell: Cell) -> str:
    text = cell_text(cell)
    return text.removesuffix(" (n=1)") if isinstance(cell.content, Mean) else text
