"""Tables that are wider than the line: wrapped heads, and columns in several parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mimbench.report.tables.table import Column


def wrap_head(text: str, width: int) -> list[str]:
    """Lines of about `width` characters. They break at spaces, except no-break spaces, and within dotted names."""
    lines = [""]
    for part in re.split(r"(?<=[ .])", text):
        if lines[-1] and len((lines[-1] + part).rstrip(" ")) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip(" ") for line in lines]


def split_columns(columns: Sequence[Column], fits: Callable[[Sequence[int]], bool]) -> list[tuple[int, ...]]:
    """The columns of each part, by index. Labels are in every part; an extra column stays with its column of scores.

    Args:
        fits: whether columns fit the line. A part that does not fit has a single column of scores.
    """
    labels = [index for index, column in enumerate(columns) if not column.has_numbers]
    groups: list[list[int]] = []
    for index, column in enumerate(columns):
        if column.has_numbers and column.main and groups:
            groups[-1].append(index)
        elif column.has_numbers:
            groups.append([index])

    parts: list[list[int]] = [[]]
    for group in groups:
        if parts[-1] and not fits([*labels, *parts[-1], *group]):
            parts.append([])
        parts[-1] += group
    return [tuple(sorted([*labels, *part])) for part in parts]
