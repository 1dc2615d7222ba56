"""A table as data: cells hold labels or numbers, marks and footnotes. `render` turns a table into text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mimbench.report.scores.statistics import LEVEL_TEXT, Summary, Verdict, best_and_next
from mimbench.report.tables.values import Value

Mark = Literal["", "best", "second"]
Content = str | Value | None
"""A label, a number, or None for an empty cell."""

_MOST_NAMED = 2
"""Most scores that a footnote names; more are counted."""


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
    """Lines below the table that hold for all of it. {best} and {second} become these words, marked as cells are."""

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """Every footnote once, in reading order: the n-th has the n-th letter."""
        in_head = [note for column in self.columns for note in column.notes]
        in_body = [note for row in self.rows for cell in row for note in cell.notes]
        return tuple(dict.fromkeys(in_head + in_body))

    def letters(self, notes: Sequence[str]) -> list[str]:
        """Letters of a cell's or column's footnotes: a ... z, aa, ab, ..."""
        return [_letter(self.notes.index(note)) for note in dict.fromkeys(notes)]


def mark_best(
    cells: Sequence[Cell], scores: Sequence[Summary | None], higher_is_better: bool, names: Sequence[str] = ()
) -> list[Cell]:
    """The cells with the best and the second marked. A footnote says so if the best is not significantly better.

    Args:
        cells: of one comparison.
        scores: one per cell; None: not measured.
        higher_is_better: direction of the metric.
        names: what the footnote calls the scores; () if it shall name none.
    """
    verdict = best_and_next(scores, higher_is_better)
    marked = list(cells)
    for index in verdict.second:
        marked[index] = replace(marked[index], mark="second")
    for index in verdict.best:
        notes = marked[index].notes
        if not verdict.is_clear:
            notes = (*notes, _doubt(scores, verdict, names))
        marked[index] = replace(marked[index], mark="best", notes=notes)
    return marked


def _doubt(scores: Sequence[Summary | None], verdict: Verdict, names: Sequence[str]) -> str:
    """Why the best score is not shown to be the best."""
    if len(verdict.best) > 1:
        return "tied"
    best = scores[verdict.best[0]]
    overlapping = [index for index in verdict.rivals if (score := scores[index]) and score.interval]
    if best is None or best.interval is None or not overlapping:
        return "not shown to be the best: a single number has no interval"
    if not names:
        whose = "another's"
    elif len(overlapping) > _MOST_NAMED:
        whose = f"those of {len(overlapping)} others"
    else:
        whose = f"{'those' if len(overlapping) > 1 else 'that'} of {' and '.join(names[i] for i in overlapping)}"
    return f"not shown to be the best: its {LEVEL_TEXT} interval overlaps {whose}"


def _letter(index: int) -> str:
    before, last = divmod(index, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)
