"""Tables as lists of what a person reads in their cells."""

from __future__ import annotations

from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.tables.table import Table


def rows_by_title(table: Table) -> list[dict[str, str]]:
    """Each row as column title -> text, without marks and footnotes."""
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, map(cell_text, row), strict=True)) for row in table.rows]
