"""Fields: columns of the frame and recipe paths that the rows or columns of a table may stand for."""

from __future__ import annotations

from typing import Any

import pandas as pd

Fields = tuple[str, ...]

_COLUMN_OF_FIELD = {"encoder": "backbone"}
"""Fields whose values come from a column of another name."""
_NOT_FIELDS = frozenset(
    ("value", "n", "low", "high", "higher_is_better", "chance", "primary", "final", "protocol_json")
)
"""Columns that describe a measurement, not the setting that it belongs to."""


def column_of(field: str) -> str:
    """The column of the frame that holds a field's values."""
    return _COLUMN_OF_FIELD.get(field, field)


def list_fields(tidy: pd.DataFrame) -> list[str]:
    """All fields that a frame offers."""
    return [name for name in tidy.columns if name not in _NOT_FIELDS]


def format_value(value: Any) -> str:
    """A field's value as text. Whole floats lose their ".0": pandas turns int columns with gaps into floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def sort_key(value: Any) -> tuple[int, float, str]:
    """A key that sorts the values of a field: missing values first, then numbers, then text."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
