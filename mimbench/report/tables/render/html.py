"""Tables in HTML."""

from __future__ import annotations

import html
import re

from mimbench.report.tables.render.notes import lines_below, with_letters
from mimbench.report.tables.render.numbers import cell_text, factor_out_n
from mimbench.report.tables.table import Cell, Column, Table

_MARKS = {"": "{}", "best": "<strong>{}</strong>", "similar": "<u>{}</u>", "second": "<u>{}</u>"}
_LETTERS = "<sup>{}</sup>"
_STYLE = """\
<style>
table.mimbench { border-collapse: collapse; font-variant-numeric: tabular-nums; line-height: 1.4; }
table.mimbench caption { font-weight: bold; padding: 0.5em 0; text-align: left; }
table.mimbench :is(th, td) { padding: 0.25em 0.75em; text-align: left; vertical-align: baseline; }
table.mimbench .number { text-align: right; }
table.mimbench td.number { white-space: nowrap; }
table.mimbench :is(thead, tbody) { border-bottom: 2px solid #888; }
table.mimbench thead { border-top: 2px solid #888; }
table.mimbench thead th { vertical-align: bottom; }
table.mimbench tbody tr + tr { border-top: 1px solid #8886; }
table.mimbench tfoot { font-size: 0.85em; }
:root:has(> body > table.mimbench:only-child) { color-scheme: light dark; font-family: system-ui, sans-serif; }
</style>
"""
"""For tables of this class only, in the colours of the page around them. The last rule is for a file that holds
nothing but the table."""


def render_html(table: Table) -> str:
    """A table element and its style, in ASCII, to be put into any page."""
    table, shows_n = factor_out_n(table)
    head = "".join(_head(table, column) for column in table.columns)
    lines = ['<table class="mimbench">']
    if table.title:
        lines.append(f"<caption>{html.escape(table.title)}</caption>")
    lines.append(f"<thead><tr>{head}</tr></thead>")
    for block in table.blocks:
        lines.append("<tbody>")
        for row in block:
            cells = (_cell(table, column, cell, shows_n) for column, cell in zip(table.columns, row, strict=True))
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody>")
    below = lines_below(table, _LETTERS, _MARKS, html.escape)
    if below:
        lines.append(f'<tfoot><tr><td colspan="{len(table.columns)}">{"<br>".join(below)}</td></tr></tfoot>')
    return _STYLE + "\n".join([*lines, "</table>"]).encode("ascii", "xmlcharrefreplace").decode() + "\n"


def _head(table: Table, column: Column) -> str:
    raised = re.sub(r"\^(\w+)", r"<sup>\1</sup>&thinsp;", html.escape(column.title))  # AP^box
    title = with_letters(table, raised, column.notes, _LETTERS)
    return f'<th scope="col"{_class(column)}>{title}</th>'


def _cell(table: Table, column: Column, cell: Cell, shows_n: bool) -> str:
    text = with_letters(table, _MARKS[cell.mark].format(html.escape(cell_text(cell, shows_n))), cell.notes, _LETTERS)
    return f"<td{_class(column)}>{text}</td>"


def _class(column: Column) -> str:
    return ' class="number"' if column.has_numbers else ""
