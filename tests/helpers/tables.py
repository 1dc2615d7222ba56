"""Tables as lists of what a person reads in their cells."""

from __future__ import annotations

from mimbench.report.tables.render.numbers import cell_text
from mimbench.report.tables.table import Table


def rows_by_title(table: Table) -> list[dict[str, str]]:
    """Each row as column title -> text, without marks and footnotes. A number of one seed has no n."""
    titles = [column.title for column in table.columns]
    texts = [[cell_text(cell).removesuffix(" (n=1)") for cell in row] for row in table.rows]
    return [dict(zip(titles, row, strict=True)) for row in texts]
