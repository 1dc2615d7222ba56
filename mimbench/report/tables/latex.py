"""Tables in LaTeX: they fit the line and the page, whatever is in them.

What is too wide is first made narrower (what all rows share is told once, long text and heads are wrapped), then parted
into tables below each other, and only what is left is shrunk, by LaTeX itself, which alone knows the line's width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mimbench.report.tables.table import Column, Table

_LINE, _PAGE = 72, 42
"""What fits the line (characters of 10 pt) and the page (lines) of the class article."""
_LEAST_SCALE = 0.7
"""Below it, type is too small to read."""
_GAP = 2.5
"""Between two columns, in characters."""
_LONG = 20
"""Characters in a line of a label that is wrapped."""
_EM = 0.52
"""Mean width of a character."""
_NOTE_LINE = 95
"""Characters in a line of notes."""
_BREAK = re.compile(r"(?<=[/_.])(?=\w)|(?<=\s)(?=\S)")
"""Where a wrapped text may be broken."""
_MARKS = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
_RAISED = r"\textsuperscript{{{}}}"


@dataclass(frozen=True)
class _Piece:
    """Some rows and columns of a table, set as one."""

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    width: float
    lines: float

    @property
    def height(self) -> float:
        """In lines of the page, after shrinking."""
        return (self.lines + 2) * min(1, _LINE / self.width)


def latex(table: Table) -> str:
    """Table environments; the first line says which packages they need."""
    table = _n_told_once(table)
    layout = _Layout(table)
    if layout.width > _LINE:
        layout = _Layout(_shared_told_once(table), wrapped=True)
    below = layout.below()
    room = sum(math.ceil(len(line) / _NOTE_LINE) for line in below) * 0.85
    pages: list[list[_Piece]] = [[]]
    for piece in layout.pieces():
        used = sum(other.height for other in pages[-1])
        if pages[-1] and used + piece.height > _PAGE:
            pages.append([])
        pages[-1].append(piece)
    if room + sum(piece.height for piece in pages[-1]) > _PAGE:
        pages.append([])
    packages = "array,booktabs,graphicx" if any(layout.wraps) else "booktabs,graphicx"
    lines = [rf"% needs \usepackage{{{packages}}}"]
    for index, pieces in enumerate(pages):
        lines += [r"\clearpage", r"\addtocounter{table}{-1}"][: 2 if table.title else 1] if index else []
        lines += [r"\begin{table}", r"\centering"]
        if table.title:
            lines.append(rf"\caption{{{latex_escaped(table.title)}{' (continued)' if index else ''}}}")
        for place, piece in enumerate(pieces):
            lines += (["", r"\bigskip"] if place else []) + list(layout.set(piece))
        if below and index == len(pages) - 1:
            lines += ["", r"\smallskip"] if pieces else []
            lines += [r"\begin{minipage}{\linewidth}", r"\footnotesize\raggedright"]
            lines += [" \\\\\n".join(below), r"\end{minipage}"]
        lines.append(r"\end{table}")
    return "\n".join(lines) + "\n"


class _Layout:
    """Where a table's lines break, and how wide that makes it. All in characters and lines."""

    def __init__(self, table: Table, wrapped: bool = False) -> None:
        self.table = table
        columns = list(zip(*([self._length(cell.text, cell.notes) for cell in row] for row in table.rows), strict=True))
        longest = [max(lengths, default=0) for lengths in columns] or [0] * len(table.columns)
        self.wraps = [0] * len(table.columns)
        """Width of the columns that are wrapped, else 0."""
        if wrapped:
            for index, column in enumerate(table.columns):
                words = [word for row in table.rows for word in _BREAK.split(row[index].text)]
                if not column.parts and longest[index] > _LONG * 1.2:
                    self.wraps[index] = max(_LONG, *(math.ceil(len(word) * 1.25) for word in words))
        body = [self.wraps[index] or length for index, length in enumerate(longest)]
        self.heads = [
            _lines(column.title, max(8, width)) if wrapped else [column.title]
            for column, width in zip(table.columns, body, strict=True)
        ]
        self.widths = [
            max(width, self._length(max(head, key=len), column.notes))
            for head, width, column in zip(self.heads, body, table.columns, strict=True)
        ]

    @property
    def width(self) -> float:
        return self._width(range(len(self.widths)))

    def pieces(self) -> Iterator[_Piece]:
        """All of the table, parted where it is too wide or too long."""
        for columns in self._blocks():
            width, head = self._width(columns), max(len(self.heads[index]) for index in columns)
            room = _PAGE * max(1, width / _LINE) - 3
            rows: list[int] = []
            lines = head
            for row in range(len(self.table.rows)):
                height = self._height(row, columns)
                if rows and lines + height > room:
                    yield _Piece(columns, tuple(rows), width, lines)
                    rows, lines = [], head
                rows.append(row)
                lines += height
            yield _Piece(columns, tuple(rows), width, lines)

    def set(self, piece: _Piece) -> Iterator[str]:
        """LaTeX of a piece."""
        columns = [self.table.columns[index] for index in piece.columns]
        align = "".join(self._align(index) for index in piece.columns)
        yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        yield rf"\begin{{tabular}}{{{align}}}"
        yield r"\toprule"
        heads = zip((self.heads[index] for index in piece.columns), columns, strict=True)
        yield " & ".join(self._head(head, column) for head, column in heads) + r" \\"
        yield r"\midrule"
        for row in piece.rows:
            yield " & ".join(self._cell(row, index) for index in piece.columns) + r" \\"
        yield r"\bottomrule"
        yield r"\end{tabular}}"

    def below(self) -> list[str]:
        """Remarks and footnotes."""
        table = self.table
        remarks = [
            latex_escaped(line).replace(r"\{best\}", r"\textbf{best}").replace(r"\{second\}", r"\underline{second}")
            for line in table.remarks
        ]
        notes = zip(table.letters(table.notes), table.notes, strict=True)
        return remarks + [f"{_RAISED.format(letter)} {latex_escaped(note)}" for letter, note in notes]

    def _blocks(self) -> list[tuple[int, ...]]:
        """Columns of each part: labels in each, and what stands beside a column with it."""
        labels = [index for index, column in enumerate(self.table.columns) if not column.parts]
        groups: list[list[int]] = []
        for index, column in enumerate(self.table.columns):
            if column.parts and column.of and groups:
                groups[-1].append(index)
            elif column.parts:
                groups.append([index])

        parts: list[list[int]] = [[]]
        for group in groups:
            if parts[-1] and self._width([*labels, *parts[-1], *group]) > _LINE / _LEAST_SCALE:
                parts.append([])
            parts[-1] += group
        return [tuple(sorted([*labels, *part])) for part in parts]

    def _width(self, columns: Sequence[int]) -> float:
        return sum(self.widths[index] + _GAP for index in columns)

    def _height(self, row: int, columns: Sequence[int]) -> int:
        cells = self.table.rows[row]
        return max(
            math.ceil(1.15 * len(cells[index].text) / self.wraps[index]) or 1 if self.wraps[index] else 1
            for index in columns
        )

    def _align(self, index: int) -> str:
        if self.wraps[index]:
            return rf">{{\raggedright\arraybackslash}}p{{{self.wraps[index] * _EM:.1f}em}}"
        return "r" if self.table.columns[index].parts else "l"

    def _head(self, lines: Sequence[str], column: Column) -> str:
        text = self._lettered(r" \\ ".join(map(latex_escaped, lines)), column.notes)
        side = "r" if column.parts else "l"
        return text if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{text}\end{{tabular}}"

    def _cell(self, row: int, index: int) -> str:
        cell = self.table.rows[row][index]
        parts = _BREAK.split(cell.text) if self.wraps[index] else [cell.text]
        text = r"\allowbreak{}".join(map(latex_escaped, parts))
        return self._lettered(_MARKS[cell.mark].format(text), cell.notes)

    def _lettered(self, text: str, notes: tuple[str, ...]) -> str:
        return text + _RAISED.format(",".join(self.table.letters(notes))) if notes else text

    def _length(self, text: str, notes: tuple[str, ...]) -> int:
        return len(text) + math.ceil(0.7 * len(",".join(self.table.letters(notes))))


def _lines(text: str, width: int) -> list[str]:
    """Text in lines of about so many characters, broken at blanks and within long names."""
    lines = [""]
    for part in re.split(r"(?<=[\s.])", text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _n_told_once(table: Table) -> Table:
    """The table without "(n=3)" in its cells, where all means are over as many seeds."""
    found = {
        cell.numbers[column.parts.index("n")]
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if "n" in column.parts and cell.numbers
    }
    if len(found) != 1 or (n := found.pop()) == 1:
        return table
    rows = [[replace(cell, text=cell.text.replace(f" (n={n})", "")) for cell in row] for row in table.rows]
    return replace(table, rows=tuple(map(tuple, rows)), remarks=(*table.remarks, f"n = {n} throughout"))


def _shared_told_once(table: Table) -> Table:
    """The table without columns of labels in which all rows are alike; a remark tells them."""
    if len(table.rows) < 2:
        return table
    shared = {
        index: table.rows[0][index].text
        for index, column in enumerate(table.columns)
        if not (column.parts or column.notes)
        and len({row[index].text for row in table.rows}) == 1
        and not any(row[index].notes or row[index].mark for row in table.rows)
    }
    kept = [index for index in range(len(table.columns)) if index not in shared]
    if not shared or all(table.columns[index].parts for index in kept):
        return table
    told = "; ".join(f"{table.columns[index].title}: {text}" for index, text in shared.items())
    return Table(
        tuple(table.columns[index] for index in kept),
        tuple(tuple(row[index] for index in kept) for row in table.rows),
        table.title,
        (f"all rows: {told}", *table.remarks),
    )


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


def latex_escaped(text: str) -> str:
    """Text for LaTeX; what pdflatex's fonts may lack is told by its code point."""
    return re.sub("-(?=-)", "-{}", "".join(_SIGNS.get(sign) or _sign(sign) for sign in text))


def _sign(sign: str) -> str:
    if not sign.isprintable():
        return " "
    return sign if sign.isascii() or _ACCENTED.match(sign) else rf"\texttt{{U+{ord(sign):04X}}}"
