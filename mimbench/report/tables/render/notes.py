"""What all formats share: letters of footnotes, and the lines below a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mimbench.report.tables.table import Table


def with_letters(table: Table, text: str, notes: tuple[str, ...], form: str) -> str:
    """A text followed by the letters of its footnotes. form: how the format raises letters, as " [{}]"."""
    return text + form.format(",".join(table.letters(notes))) if notes else text


def lines_below(table: Table, form: str, marks: Mapping[str, str], escape: Callable[[str], str]) -> list[str]:
    """The remarks of a table, then its footnotes.

    Args:
        table: any table.
        form: a footnote's letter in this format, as "[{}]".
        marks: this format's marks of cells, as "*{}*" for "best".
        escape: turns plain text into text of this format.
    """
    remarks = []
    for remark in map(escape, table.remarks):
        for mark in ("best", "similar", "second"):  # replaced after escaping, which may escape the braces too
            remark = remark.replace(escape(f"{{{mark}}}"), marks[mark].format(mark))
        remarks.append(remark)
    letters = table.letters(table.notes)
    return remarks + [
        f"{form.format(letter)} {escape(note)}" for letter, note in zip(letters, table.notes, strict=True)
    ]
