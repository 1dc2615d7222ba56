"""A table as data: cells with marks and notes, made by `build` or a layout and turned into text by `render`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mimbench.report.scores.statistics import LEVEL_TEXT, Summary, Verdict, best_and_next

Mark = Literal["", "best", "second"]
ABSENT = "-"
_NAMED = 2
"""Most scores that a footnote names; more are counted."""


@dataclass(frozen=True)
class Cell:
    """One cell: what is read, and the numbers behind it."""

    text: str = ABSENT
    numbers: tuple[float | int | str | None, ...] = ()
    """One for each of the column's `parts`, for CSV; () where the cell is empty."""
    mark: Mark = ""
    notes: tuple[str, ...] = ()
    """Footnotes; equal texts share a letter."""


@dataclass(frozen=True)
class Column:
    title: str
    parts: tuple[str, ...] = ()
    """Numbers of each cell; the first goes under the title alone. (): a column of labels."""
    notes: tuple[str, ...] = ()
    of: str = ""
    """Title of the column that this one stands beside, where its own title does not tell (CSV)."""


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as columns; remarks hold for the whole table."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    remarks: tuple[str, ...] = field(default=())

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """Every footnote once, in reading order: the n-th has the n-th letter."""
        cells = [note for row in self.rows for cell in row for note in cell.notes]
        return tuple(dict.fromkeys([note for column in self.columns for note in column.notes] + cells))

    def letters(self, notes: Sequence[str]) -> list[str]:
        """Letters of a cell's or column's footnotes: a ... z, aa, ab, ..."""
        order = self.notes
        return [_letter(order.index(note)) for note in dict.fromkeys(notes)]


def spread_text(score: Summary, spread: Literal["sd", "se"] = "sd", digits: int = 1) -> str:
    """ "59.8 ± 1.9 (n=3)"; one seed: "59.8"."""
    width = score.sd if spread == "sd" else score.se
    if width is None:
        return f"{score.mean:.{digits}f}"
    return f"{score.mean:.{digits}f} ± {width:.{digits}f} (n={score.n})"


def mark_best(
    cells: Sequence[Cell], scores: Sequence[Summary | None], higher_is_better: bool, names: Sequence[str] = ()
) -> list[Cell]:
    """The cells with the best and the second marked; a best that is not told apart from all others says why not.

    names: what the footnote calls the scores; without them it names none.
    """
    verdict = best_and_next(scores, higher_is_better)
    found = list(cells)
    for index in verdict.second:
        found[index] = replace(found[index], mark="second")
    for index in verdict.best:
        notes = found[index].notes if verdict.told_apart else (*found[index].notes, _doubt(scores, verdict, names))
        found[index] = replace(found[index], mark="best", notes=notes)
    return found


def _doubt(scores: Sequence[Summary | None], verdict: Verdict, names: Sequence[str]) -> str:
    if len(verdict.best) > 1:
        return "tied"
    measured = [index for index in (*verdict.best, *verdict.rivals) if (score := scores[index]) and score.interval]
    overlapping = [index for index in measured if index not in verdict.best]
    if verdict.best[0] not in measured or not overlapping:
        return "not shown to be the best: a single number has no interval"
    if not names:
        whose = "another's"
    elif len(overlapping) > _NAMED:
        whose = f"those of {len(overlapping)} others"
    else:
        whose = f"{'those' if len(overlapping) > 1 else 'that'} of {' and '.join(names[i] for i in overlapping)}"
    return f"not shown to be the best: its {LEVEL_TEXT} interval overlaps {whose}"


def _letter(index: int) -> str:
    before, last = divmod(index, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)
