"""Tables as LaTeX: one booktabs tabular per table environment, for an author to place.

A table that is wider than the line is made narrower in three steps. Labels and heads are wrapped, and what all rows or
all numbers have in common moves below the table. Columns that still do not fit go to further table environments. The
rest is left to resizebox, since only LaTeX knows the width of a line. Pages are not this module's business.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mimbench.report.tables.render.decimals import Decimals
from mimbench.report.tables.render.notes import lines_below, with_letters
from mimbench.report.tables.render.numbers import cell_text, factor_out_n
from mimbench.report.tables.render.widths import split_columns, wrap_head
from mimbench.report.tables.table import Cell, Column, Table

# Widths are estimates in characters of 10 pt type. If one is wrong, a table is shrunk, wrapped or split a little early
# or late; it fits the line in any case.
_LINE = 72
"""Characters in a line of the class article: its linewidth of 345 pt, 4.8 pt per character."""
_LEAST_SCALE = 0.7
"""The smallest scale at which 10 pt type is readable: 7 pt. Wider tables are split."""
_GAP = 2.5
"""Space between two columns: 2 tabcolsep = 12 pt."""
_LONG = 20
"""Characters per line of a wrapped label."""
_EM = 0.52
"""Mean width of a character in em, for the width of wrapped columns."""
_BREAK = re.compile(r"(?<=[/_.])(?=\w)|(?<=\s)(?=\S)")
"""Places at which a wrapped text may break."""
_MARKS = {"": "{}", "best": r"\textbf{{{}}}", "similar": r"\underline{{{}}}", "second": r"\underline{{{}}}"}
_RAISED = r"\textsuperscript{{{}}}"


@dataclass(frozen=True)
class LatexOptions:
    """How a table is set."""

    caption: str = ""
    """"": the table's title."""
    label: str = ""
    """For references: "tab:main"."""
    is_wide: bool = False
    """A table* environment, which spans both columns of a page."""
    is_bare: bool = False
    """The tabular alone, without environment, caption, remarks and footnotes."""


def render_latex(table: Table, options: LatexOptions = LatexOptions()) -> str:
    """Table environments. The first line says which packages they need."""
    table, shows_n = factor_out_n(table)
    if options.is_bare:
        table = _without_notes(table)
    layout = _Layout(table, shows_n)
    if layout.width > _LINE * (2 if options.is_wide else 1):
        layout = _Layout(_factor_out_shared_columns(table), shows_n, is_wrapped=True)
    packages = "array,booktabs,graphicx" if any(layout.wraps) else "booktabs,graphicx"
    lines = [rf"% needs \usepackage{{{packages}}}"]
    parts = layout.split()
    environment = "table*" if options.is_wide else "table"
    caption = options.caption or table.title
    for number, columns in enumerate(parts, start=1):
        if options.is_bare:
            lines += layout.tabular(columns)
            continue
        lines += [rf"\begin{{{environment}}}", r"\centering"]
        if caption:
            part = f" (part {number} of {len(parts)})" if len(parts) > 1 else ""
            lines.append(rf"\caption{{{escape_latex(caption)}{part}}}")
        if options.label and number == 1:
            lines.append(rf"\label{{{options.label}}}")
        lines += layout.tabular(columns)
        if number == len(parts):
            lines += _below(layout.table)
        lines.append(rf"\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _without_notes(table: Table) -> Table:
    return replace(
        table,
        columns=tuple(replace(column, notes=()) for column in table.columns),
        rows=tuple(tuple(replace(cell, notes=()) for cell in row) for row in table.rows),
        remarks=(),
    )


def _below(table: Table) -> list[str]:
    lines = lines_below(table, _RAISED, _MARKS, escape_latex)
    if not lines:
        return []
    minipage = [r"\begin{minipage}{\linewidth}", r"\footnotesize\raggedright", " \\\\\n".join(lines), r"\end{minipage}"]
    return ["", r"\smallskip", *minipage]


class _Layout:
    """Widths of a table's columns, and where its labels and heads are wrapped."""

    def __init__(self, table: Table, shows_n: bool, is_wrapped: bool = False) -> None:
        self.table = table
        self._shows_n = shows_n
        longest = [
            max((self._length(self._text(row[index]), row[index].notes) for row in table.rows), default=0)
            for index in range(len(table.columns))
        ]
        self.wraps = [self._wrap(index, longest[index]) if is_wrapped else 0 for index in range(len(table.columns))]
        """Per column: the width of its lines if its labels are wrapped, else 0."""
        body = [wrap or length for wrap, length in zip(self.wraps, longest, strict=True)]
        self._decimals = [Decimals([self._text(row[index]) for row in table.rows]) for index in range(len(longest))]
        self._heads = [
            wrap_head(column.title, max(8, width)) if is_wrapped else [column.title]
            for column, width in zip(table.columns, body, strict=True)
        ]
        self._widths = [
            max(width, self._length(max(head, key=len), column.notes))
            for head, width, column in zip(self._heads, body, table.columns, strict=True)
        ]

    @property
    def width(self) -> float:
        """Of the whole table."""
        return self._width_of(range(len(self._widths)))

    def split(self) -> list[tuple[int, ...]]:
        """The columns of each part."""
        return split_columns(self.table.columns, lambda columns: self._width_of(columns) <= _LINE / _LEAST_SCALE)

    def tabular(self, columns: Sequence[int]) -> Iterator[str]:
        """Lines of a tabular with these columns, shrunk by LaTeX if it is wider than the line."""
        align = "".join(self._align(index) for index in columns)
        yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        yield rf"\begin{{tabular}}{{{align}}}"
        yield r"\toprule"
        yield " & ".join(self._head(self._heads[index], self.table.columns[index]) for index in columns) + r" \\"
        for block in self.table.blocks:
            yield r"\midrule"
            for row in block:
                yield " & ".join(self._cell(row[index], index) for index in columns) + r" \\"
        yield r"\bottomrule"
        yield r"\end{tabular}}"

    def _wrap(self, index: int, longest: int) -> int:
        """Width at which a column of labels is wrapped; 0 if it is not."""
        if self.table.columns[index].has_numbers or longest <= _LONG * 1.2:
            return 0
        words = [word for row in self.table.rows for word in _BREAK.split(self._text(row[index]))]
        # A word that is longer than the line cannot be broken. The margin is for letters wider than the mean.
        return max(_LONG, *(math.ceil(len(word) * 1.25) for word in words))

    def _width_of(self, columns: Sequence[int]) -> float:
        return sum(self._widths[index] + _GAP for index in columns)

    def _align(self, index: int) -> str:
        if self.wraps[index]:
            return rf">{{\raggedright\arraybackslash}}p{{{self.wraps[index] * _EM:.1f}em}}"
        return "r" if self.table.columns[index].has_numbers else "l"

    def _head(self, lines: Sequence[str], column: Column) -> str:
        text = with_letters(self.table, r" \\ ".join(map(_raise, lines)), column.notes, _RAISED)
        align = "r" if column.has_numbers else "l"
        return text if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}{align}@{{}}}}{text}\end{{tabular}}"

    def _cell(self, cell: Cell, index: int) -> str:
        text = self._text(cell)
        parts = _BREAK.split(text) if self.wraps[index] else [text]
        marked = _MARKS[cell.mark].format(r"\allowbreak{}".join(map(escape_latex, parts)))
        return with_letters(self.table, self._decimals[index].pad(text, marked), cell.notes, _RAISED)

    def _text(self, cell: Cell) -> str:
        return cell_text(cell, self._shows_n)

    def _length(self, text: str, notes: tuple[str, ...]) -> int:
        """Raised letters are 0.7 times as wide as others."""
        return len(text) + math.ceil(0.7 * len(",".join(self.table.letters(notes))))


def _raise(head: str) -> str:
    """A head as LaTeX, with what follows a ^ raised: AP^box. A space keeps it apart from the letter of a footnote."""
    return re.sub(r"\\textasciicircum\{\}(\w+)", r"\\textsuperscript{\1}\\,", escape_latex(head))


def _factor_out_shared_columns(table: Table) -> Table:
    """The table without columns of labels in which all rows are equal. A remark shows these labels."""
    if len(table.rows) < 2:
        return table
    shared = [index for index in range(len(table.columns)) if _is_shared(table, index)]
    remaining = [index for index in range(len(table.columns)) if index not in shared]
    has_labels = any(not table.columns[index].has_numbers for index in remaining)
    if not shared or not has_labels:
        return table
    labels = "; ".join(f"{table.columns[index].title}: {cell_text(table.rows[0][index])}" for index in shared)
    return replace(
        table,
        columns=tuple(table.columns[index] for index in remaining),
        rows=tuple(tuple(row[index] for index in remaining) for row in table.rows),
        remarks=(f"all rows: {labels}", *table.remarks),
    )


def _is_shared(table: Table, index: int) -> bool:
    """Whether a column of labels is the same in all rows, without any mark or footnote."""
    column = table.columns[index]
    cells = [row[index] for row in table.rows]
    if column.has_numbers or column.notes or any(cell.notes or cell.mark for cell in cells):
        return False
    return all(cell.content == cells[0].content for cell in cells)


_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "{''}",
    "[": "{[}",  # at the start of a row, it would be an option of the line break before it
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": r"\textendash{}",
    "Δ": r"$\Delta$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "√": r"$\surd$",
}
_ACCENTED = re.compile("[À-ÖØ-öø-ÿ]")


def escape_latex(text: str) -> str:
    """Plain text as LaTeX. A character that pdflatex's fonts may lack becomes its code point: U+4E2D."""
    return re.sub("-(?=-)", "-{}", "".join(_SIGNS.get(sign) or _sign(sign) for sign in text))


def _sign(sign: str) -> str:
    if not sign.isprintable():
        return " "
    return sign if sign.isascii() or _ACCENTED.match(sign) else rf"\texttt{{U+{ord(sign):04X}}}"
