"""What the rows and columns of a comparison table stand for: the fields that are chosen, and those to be told too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.recipe import AT_EPOCH, is_of_task
from mimbench.report.records.frame import COLUMNS

if TYPE_CHECKING:
    from mimbench.report.scores.collect import Choice

Fields = tuple[str, ...]
_OF_FIELD = {"encoder": "backbone"}
"""Fields that are shown from a column of another name."""
_NO_FIELDS = frozenset(("value", "n", "low", "high", "higher_is_better", "chance", "primary", "protocol_json"))
_MEASURED = ("task", "metric")
_OF_THE_METHOD = ("recipe", "encoder")


def column_of(name: str) -> str:
    """The frame's column that a field is shown from."""
    return _OF_FIELD.get(name, name)


def text_of(value: Any) -> str:
    """A field's value; beside missing ones, whole numbers come as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def order_of(value: Any) -> tuple[int, float, str]:
    """To sort a field's values by: what is missing first, then numbers, then text."""
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


def known_fields(tidy: pd.DataFrame) -> list[str]:
    """Columns and paths of a frame that rows and columns can stand for."""
    return [name for name in tidy.columns if name not in _NO_FIELDS]


def sides(tidy: pd.DataFrame, choice: Choice, early: bool) -> tuple[Fields, Fields]:
    """(fields of the rows, fields of the columns): the chosen ones and, on the side they belong to, those to be told.

    A metric goes with its task; encoder, recipe and settings go with the method. A setting of the method ("method.x")
    that the chosen fields tell already is left out. early: whether there are earlier epochs of pretrainings.

    Raises:
        InputError: a chosen field that is none, or that no record has.
    """
    for name in (*choice.rows, *choice.columns):
        _check(name, tidy)
    rows, columns = _both(choice.rows, choice.columns)
    asked = {*rows, *columns}
    if "at_epoch" in asked or not early:
        asked.add(AT_EPOCH)  # is told already, or tells nothing

    def several(name: str) -> bool:
        return name not in asked and tidy[column_of(name)].nunique(dropna=False) > 1

    if several("method"):
        at_columns = any(map(_is_of_the_method, columns)) and not any(map(_is_of_the_method, rows))
        rows, columns = (rows, ("method", *columns)) if at_columns else ((*rows, "method"), columns)
    for name, other in (_MEASURED, _MEASURED[::-1]):
        untold = name == "metric" and name not in asked and "task" in (*rows, *columns)
        if several(name) or untold:
            rows, columns = (rows, _beside(other, name, columns)) if other in columns else ((*rows, name), columns)
    paths = [name for name in tidy.columns if name not in COLUMNS and not is_of_task(name)]
    settings = [name for name in (*_OF_THE_METHOD, *paths, "set") if several(name) and _tells(name, tidy, asked)]
    return with_settings(rows, columns, settings)


def with_settings(rows: Fields, columns: Fields, settings: Sequence[str]) -> tuple[Fields, Fields]:
    """Settings on the side of the method."""
    settings = [name for name in settings if name not in (*rows, *columns)]
    if "method" in columns:
        return rows, (*columns, *settings)
    return (*rows, *settings), columns


def _both(rows: Fields, columns: Fields) -> tuple[Fields, Fields]:
    """What the other side stands for, where one alone is chosen; and neither: methods by metrics of tasks."""
    if rows and columns:
        return rows, columns
    if columns:
        if "task" in columns and "metric" not in columns:
            columns = _beside("task", "metric", columns)
        return tuple(name for name in ("method", *_MEASURED) if name not in columns), columns
    if "task" in rows and "method" not in rows:
        return (rows if "metric" in rows else _beside("task", "metric", rows)), ("method",)
    return rows or ("method",), tuple(name for name in _MEASURED if name not in rows)


def _beside(of: str, name: str, fields: Fields) -> Fields:
    place = fields.index(of) + (name == "metric")
    return (*fields[:place], name, *fields[place:])


def _is_of_the_method(name: str) -> bool:
    return name in (*_OF_THE_METHOD, "set", "at_epoch") or ("." in name and not is_of_task(name))


def _tells(name: str, tidy: pd.DataFrame, asked: set[str]) -> bool:
    """Whether a setting of the method tells what the fields that are asked for leave open."""
    if not name.startswith("method."):
        return True
    columns = [column_of(field) for field in asked if column_of(field) in tidy.columns]
    told = tidy[[*dict.fromkeys([*columns, column_of(name)])]].drop_duplicates()
    return bool(len(told) > len(told[columns].drop_duplicates()))


def _check(name: str, tidy: pd.DataFrame) -> None:
    known = known_fields(tidy)
    if column_of(name) not in known:
        raise InputError(f"unknown field {name!r} for rows or columns{nearest(name, known)}")
    if name not in COLUMNS and tidy[name].isna().all():
        raise InputError(f"no record has a setting {name!r}; see `mimbench show recipe` for what there is")
