"""Tables for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from mimbench.report.tables.render.notes import lines_below, with_letters
from mimbench.report.tables.render.numbers import cell_text, factor_out_n
from mimbench.report.tables.render.widths import split_columns, wrap_head
from mimbench.report.tables.table import Cell, Table
from mimbench.text import align_columns

_MARKS = {"": "{}", "best": "*{}*", "similar": "_{}_", "second": "_{}_"}
_LETTERS = " [{}]"
_WIDTH = 160
"""Characters of a line if the output is no terminal and the variable COLUMNS is not set."""
_GAP = 2
"""Characters between two columns."""


def render_text(table: Table) -> str:
    """Columns padded with spaces, a rule below the head, remarks and footnotes below the table.

    A table that is wider than the terminal has its heads wrapped. Columns that still do not fit form further parts.
    """
    table, shows_n = factor_out_n(table)

    def show(cell: Cell) -> str:
        return with_letters(table, _MARKS[cell.mark].format(cell_text(cell, shows_n)), cell.notes, _LETTERS)

    line = shutil.get_terminal_size((_WIDTH, 24)).columns
    body = [[show(cell) for cell in row] for row in table.rows]
    heads = [[with_letters(table, column.title, column.notes, _LETTERS)] for column in table.columns]
    widest = [max((len(row[index]) for row in body), default=0) for index in range(len(heads))]
    if _width(heads, widest, range(len(heads))) > line:
        heads = [wrap_head(head[0], max(8, width)) for head, width in zip(heads, widest, strict=True)]
    parts = split_columns(table.columns, lambda columns: _width(heads, widest, columns) <= line)
    blocks = [
        _lines([heads[index] for index in part], [[row[index] for index in part] for row in body], table.controls)
        for part in parts
    ]
    title = [table.title, ""] if table.title else []
    below = [*lines_below(table, "[{}]", _MARKS, str), *table.advice]
    lines = [line for number, block in enumerate(blocks) for line in ([""] * (number > 0) + block)]
    return "\n".join([*title, *lines, *([""] if below else []), *below]) + "\n"


def _width(heads: Sequence[Sequence[str]], widest: Sequence[int], columns: Sequence[int]) -> int:
    """Characters in a line with these columns. widest: per column, the width of its longest cell."""
    return sum(max(widest[index], *map(len, heads[index])) + _GAP for index in columns) - _GAP


def _lines(heads: Sequence[Sequence[str]], body: Sequence[Sequence[str]], controls: int) -> list[str]:
    """Heads, which may have several lines and stand on the rule, then the rows, with a rule below the controls."""
    height = max(map(len, heads))
    padded = [[""] * (height - len(head)) + list(head) for head in heads]
    lines = align_columns([*zip(*padded, strict=True), *body], heads=height)
    if 0 < controls < len(body):
        lines.insert(height + 1 + controls, lines[height])
    return lines
