"""What the rows and columns of a comparison table stand for: the fields that are chosen, and those to be told too."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.recipe import AT_EPOCH, is_of_task
from mimbench.report.records.frame import COLUMNS
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.fields import Fields, column_of, list_fields

_MEASURED = ("task", "metric")
_OF_THE_METHOD = ("recipe", "encoder")


def resolve_axes(tidy: pd.DataFrame, choice: Choice, early: bool) -> tuple[Fields, Fields]:
    """(fields of the rows, fields of the columns): the chosen ones and, on the side they belong to, those to be told.

    A metric goes with its task; encoder, recipe and settings go with the method. A setting of the method ("method.x")
    that the chosen fields tell already is left out. early: whether there are earlier epochs of pretrainings.

    Raises:
        InputError: a chosen field that is none, or that no record has.
    """
    for name in (*choice.row_fields, *choice.column_fields):
        _check(name, tidy)
    rows, columns = _default_axes(choice.row_fields, choice.column_fields)
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
            rows, columns = (
                (rows, _insert_next_to(other, name, columns)) if other in columns else ((*rows, name), columns)
            )
    paths = [name for name in tidy.columns if name not in COLUMNS and not is_of_task(name)]
    settings = [
        name for name in (*_OF_THE_METHOD, *paths, "set") if several(name) and _distinguishes(name, tidy, asked)
    ]
    return add_settings(rows, columns, settings)


def add_settings(rows: Fields, columns: Fields, settings: Sequence[str]) -> tuple[Fields, Fields]:
    """Settings on the side of the method."""
    settings = [name for name in settings if name not in (*rows, *columns)]
    if "method" in columns:
        return rows, (*columns, *settings)
    return (*rows, *settings), columns


def _default_axes(rows: Fields, columns: Fields) -> tuple[Fields, Fields]:
    """What the other side stands for, where one alone is chosen; and neither: methods by metrics of tasks."""
    if rows and columns:
        return rows, columns
    if columns:
        if "task" in columns and "metric" not in columns:
            columns = _insert_next_to("task", "metric", columns)
        return tuple(name for name in ("method", *_MEASURED) if name not in columns), columns
    if "task" in rows and "method" not in rows:
        return (rows if "metric" in rows else _insert_next_to("task", "metric", rows)), ("method",)
    return rows or ("method",), tuple(name for name in _MEASURED if name not in rows)


def _insert_next_to(of: str, name: str, fields: Fields) -> Fields:
    place = fields.index(of) + (name == "metric")
    return (*fields[:place], name, *fields[place:])


def _is_of_the_method(name: str) -> bool:
    return name in (*_OF_THE_METHOD, "set", "at_epoch") or ("." in name and not is_of_task(name))


def _distinguishes(name: str, tidy: pd.DataFrame, asked: set[str]) -> bool:
    """Whether a setting of the method tells what the fields that are asked for leave open."""
    if not name.startswith("method."):
        return True
    columns = [column_of(field) for field in asked if column_of(field) in tidy.columns]
    told = tidy[[*dict.fromkeys([*columns, column_of(name)])]].drop_duplicates()
    return bool(len(told) > len(told[columns].drop_duplicates()))


def _check(name: str, tidy: pd.DataFrame) -> None:
    known = list_fields(tidy)
    if column_of(name) not in known:
        raise InputError(f"unknown field {name!r} for rows or columns{nearest(name, known)}")
    if name not in COLUMNS and tidy[name].isna().all():
        raise InputError(f"no record has a setting {name!r}; see `mimbench show recipe` for what there is")
