"""Tables as text, Markdown, CSV, HTML and LaTeX. Whatever stands in a cell is escaped."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable
from dataclasses import replace

from mimbench.errors import InputError, nearest
from mimbench.report.tables.latex import latex
from mimbench.report.tables.table import Cell, Column, Table
from mimbench.text import spreadsheet_text, visible


def render(table: Table, format: str) -> str:
    """The table in one of FORMATS, with a line break at its end.

    Raises:
        InputError: another format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown table format {format!r}{nearest(format, FORMATS)}")
    return FORMATS[format](_safe(table))


def _safe(table: Table) -> Table:
    """The table with control characters made visible, so that no format prints them and each cell is one line."""
    return Table(
        tuple(
            replace(column, title=visible(column.title), notes=_visible(column.notes), of=visible(column.of))
            for column in table.columns
        ),
        tuple(tuple(_safe_cell(cell) for cell in row) for row in table.rows),
        visible(table.title),
        _visible(table.remarks),
    )


def _safe_cell(cell: Cell) -> Cell:
    return replace(cell, text=visible(cell.text), notes=_visible(cell.notes))


def _visible(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(visible, texts))


def _text(table: Table) -> str:
    marks = {"": "{}", "best": "*{}*", "second": "_{}_"}

    def shown(cell: Cell) -> str:
        return _lettered(table, marks[cell.mark].format(cell.text), cell.notes, " [{}]")

    rows = [[_lettered(table, column.title, column.notes, " [{}]") for column in table.columns]]
    rows += [[shown(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"[{letter}] {note}" for letter, note in zip(table.letters(table.notes), table.notes, strict=True)]
    remarks = [_legend(line, "*best*", "_second_") for line in table.remarks]
    title = [table.title, ""] if table.title else []
    below = [*remarks, *notes]
    return "\n".join([*title, *lines, *([""] if below else []), *below]) + "\n"


def _markdown(table: Table) -> str:
    marks = {"": "{}", "best": "**{}**", "second": "<ins>{}</ins>"}

    def shown(cell: Cell) -> str:
        return _lettered(table, marks[cell.mark].format(_markdown_escaped(cell.text)), cell.notes, "<sup>{}</sup>")

    rows = [
        [_lettered(table, _markdown_escaped(column.title), column.notes, "<sup>{}</sup>") for column in table.columns]
    ]
    rows += [[shown(cell) for cell in row] for row in table.rows]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |" for row in rows]
    remarks = [_legend(_markdown_escaped(line), "**best**", "<ins>second</ins>") for line in table.remarks]
    notes = [
        f"<sup>{letter}</sup> {_markdown_escaped(note)}"
        for letter, note in zip(table.letters(table.notes), table.notes, strict=True)
    ]
    title = [f"**{_markdown_escaped(table.title)}**", ""] if table.title else []
    below = "<br>\n".join([*remarks, *notes])
    return "\n".join([*title, *lines, *(["", below] if below else [])]) + "\n"


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for column in table.columns:
        title = f"{column.of} {column.title}".strip()
        header += [f"{title} {part}" if index else title for index, part in enumerate(_parts(column))]
    writer.writerow(map(_plain, header))
    for row in table.rows:
        fields: list[object] = []
        for column, cell in zip(table.columns, row, strict=True):
            empty = "" if column.parts or cell.text == "-" else cell.text
            fields += cell.numbers or [empty] * len(_parts(column))
        writer.writerow([_plain(field) for field in fields])
    return out.getvalue()


def _plain(field: object) -> object:
    """A field of a CSV file. Numbers have twelve digits: 58.599999999999994 came of arithmetic."""
    if isinstance(field, str):
        return spreadsheet_text(field)
    return "" if field is None else float(f"{field:.12g}") if isinstance(field, float) else field


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
"""For tables of this class alone, in the colours of what is around them; the last rule is for a file opened alone."""


def _html(table: Table) -> str:
    """A table element and its style, in ASCII: it can be put into any page."""
    marks = {"": "{}", "best": "<strong>{}</strong>", "second": "<u>{}</u>"}

    def shown(cell: Cell) -> str:
        return _lettered(table, marks[cell.mark].format(html.escape(cell.text)), cell.notes, "<sup>{}</sup>")

    def number(column: Column) -> str:
        return ' class="number"' if column.parts else ""

    head = "".join(
        f'<th scope="col"{number(column)}>'
        + _lettered(table, html.escape(column.title), column.notes, "<sup>{}</sup>")
        + "</th>"
        for column in table.columns
    )
    lines = ['<table class="mimbench">']
    if table.title:
        lines.append(f"<caption>{html.escape(table.title)}</caption>")
    lines += [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = [f"<td{number(column)}>{shown(cell)}</td>" for column, cell in zip(table.columns, row, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines.append("</tbody>")
    below = [_legend(html.escape(line), "<strong>best</strong>", "<u>second</u>") for line in table.remarks] + [
        f"<sup>{letter}</sup> {html.escape(note)}"
        for letter, note in zip(table.letters(table.notes), table.notes, strict=True)
    ]
    if below:
        lines.append(f'<tfoot><tr><td colspan="{len(table.columns)}">{"<br>".join(below)}</td></tr></tfoot>')
    return _STYLE + "\n".join([*lines, "</table>"]).encode("ascii", "xmlcharrefreplace").decode() + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "html": _html,
    "latex": latex,
}


def _markdown_escaped(text: str) -> str:
    text = html.escape(text, quote=False)
    return re.sub(r"([\\`*|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _legend(remark: str, best: str, second: str) -> str:
    """A remark with {best} and {second} as this format marks them."""
    return remark.replace("{best}", best).replace("{second}", second)


def _lettered(table: Table, text: str, notes: tuple[str, ...], form: str) -> str:
    return text + form.format(",".join(table.letters(notes))) if notes else text


def _parts(column: Column) -> tuple[str, ...]:
    return column.parts or ("",)
