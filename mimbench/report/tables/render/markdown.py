"""Tables in GitHub's Markdown."""

from __future__ import annotations

import html
import re

from mimbench.report.tables.render.notes import lines_below, with_letters
from mimbench.report.tables.render.numbers import cell_text, factor_out_n
from mimbench.report.tables.table import Cell, Table

_MARKS = {"": "{}", "best": "**{}**", "similar": "<ins>{}</ins>", "second": "<ins>{}</ins>"}
_LETTERS = "<sup>{}</sup>"


def render_markdown(table: Table) -> str:
    """A pipe table, remarks and footnotes below it."""
    table, shows_n = factor_out_n(table)

    def show(cell: Cell) -> str:
        return with_letters(table, _MARKS[cell.mark].format(_escape(cell_text(cell, shows_n))), cell.notes, _LETTERS)

    head = [with_letters(table, _raise(_escape(column.title)), column.notes, _LETTERS) for column in table.columns]
    rows = [head, *([show(cell) for cell in row] for row in table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in rows]
    title = [f"**{_escape(table.title)}**", ""] if table.title else []
    below = lines_below(table, _LETTERS, _MARKS, _escape)
    return "\n".join([*title, *lines, *(["", "<br>\n".join(below)] if below else [])]) + "\n"


def _raise(title: str) -> str:
    """A head with what follows a ^ raised: AP^box. A thin space keeps it apart from the letter of a footnote."""
    return re.sub(r"\^(\w+)", r"<sup>\1</sup>&thinsp;", title)


def _escape(text: str) -> str:
    """Text without HTML, emphasis, code, links and further columns. Underscores within a word mean nothing."""
    return re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(text, quote=False))
