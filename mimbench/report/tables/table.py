"""A table as data: cells hold labels or numbers, marks and footnotes. `render` turns a table into text."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mimbench.report.tables.values import Value

Mark = Literal["", "best", "similar", "second"]
"""similar: not distinguishable from the best; second: the next after the best, as papers mark it."""
Content = str | Value | None
"""A label, a number, or None for an empty cell."""


@dataclass(frozen=True)
class Cell:
    content: Content = None
    mark: Mark = ""
    notes: tuple[str, ...] = ()
    """Footnotes; equal texts share a letter."""


@dataclass(frozen=True)
class Column:
    title: str
    number_names: tuple[str, ...] = ()
    """Names of the numbers of each cell, for CSV: the first number's column has the title alone. (): labels."""
    notes: tuple[str, ...] = ()
    main: str = ""
    """Title of the column of scores that this one adds to; "" if it is a main column itself. CSV repeats it."""

    @property
    def has_numbers(self) -> bool:
        return bool(self.number_names)


@dataclass(frozen=True)
class Table:
    """Rows with one cell per column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    remarks: tuple[str, ...] = ()
    """Lines below the table that hold for all of it. {best}, {similar} and {second} become these words, marked as
    cells are."""
    advice: tuple[str, ...] = ()
    """Lines for who made the table, such as options of the command. Only a terminal shows them."""
    controls: int = 0
    """Number of rows at the top that are controls. They are set apart from the others."""

    @property
    def blocks(self) -> tuple[tuple[tuple[Cell, ...], ...], ...]:
        """The rows of the controls and those of the methods; one block if there is nothing to set apart."""
        parts = self.rows[: self.controls], self.rows[self.controls :]
        return tuple(part for part in parts if part) or ((),)

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """Every footnote once, in reading order: the n-th has the n-th letter."""
        in_head = [note for column in self.columns for note in column.notes]
        in_body = [note for row in self.rows for cell in row for note in cell.notes]
        return tuple(dict.fromkeys(in_head + in_body))

    def letters(self, notes: Sequence[str]) -> list[str]:
        """Letters of a cell's or column's footnotes: a ... z, aa, ab, ..."""
        return [_letter(self.notes.index(note)) for note in dict.fromkeys(notes)]


def mark_cells(cells: Sequence[Cell], marks: Mapping[Mark, Sequence[int]]) -> list[Cell]:
    """The cells of one comparison with their marks. marks: indices of the cells."""
    marked = list(cells)
    for mark, indices in marks.items():
        for index in indices:
            marked[index] = replace(marked[index], mark=mark)
    return marked


def _letter(index: int) -> str:
    before, last = divmod(index, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)
