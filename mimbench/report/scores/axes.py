"""The fields of a table's rows and columns: the chosen ones, and those that separate different settings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.recipe import AT, is_of_task
from mimbench.report.records.frame import COLUMNS
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.fields import Fields, column_of, list_fields

_MEASURED = ("task", "metric")
_METHOD_SETTINGS = ("recipe", "encoder")


def resolve_axes(tidy: pd.DataFrame, choice: Choice, has_early: bool) -> tuple[Fields, Fields]:
    """(fields of the rows, fields of the columns): the chosen fields, and others in which the records differ.

    A metric is added next to its task; encoder, recipe and settings are added on the axis of the method. A setting of
    the method ("method.x") is left out if the chosen fields determine it.

    Args:
        tidy: the rows of the table's records.
        choice: the chosen fields.
        has_early: whether there are earlier epochs of pretrainings.

    Raises:
        InputError: a chosen field does not exist, or no record has it.
    """
    for name in (*choice.row_fields, *choice.column_fields):
        _check_field(name, tidy)
    rows, columns = _default_axes(choice.row_fields, choice.column_fields)
    present = {*rows, *columns}
    for path in AT:
        column = path.removeprefix("pretrain.")
        if column in present or not has_early:
            # The column shows the same epoch or step already; without earlier ones, all records are of the last one.
            present.add(path)

    def differs(name: str) -> bool:
        return name not in present and tidy[column_of(name)].nunique(dropna=False) > 1

    if differs("method"):
        has_method_settings = any(map(_is_of_method, columns)) and not any(map(_is_of_method, rows))
        if has_method_settings:
            columns = ("method", *columns)
        else:
            rows = (*rows, "method")
    for name, partner in (("task", "metric"), ("metric", "task")):
        # A task is never shown without its metric, even if all records have the same one.
        is_missing_metric = name == "metric" and name not in present and "task" in (*rows, *columns)
        if not (differs(name) or is_missing_metric):
            continue
        if partner in columns:
            columns = _insert_next_to(partner, name, columns)
        else:
            rows = (*rows, name)
    paths = [name for name in tidy.columns if name not in COLUMNS and not is_of_task(name)]
    candidates = (*_METHOD_SETTINGS, *paths, "set")
    settings = [name for name in candidates if differs(name) and _distinguishes(name, tidy, present)]
    return add_settings(rows, columns, settings)


def add_settings(rows: Fields, columns: Fields, settings: Sequence[str]) -> tuple[Fields, Fields]:
    """Rows and columns with further settings on the axis of the method."""
    settings = [name for name in settings if name not in (*rows, *columns)]
    if "method" in columns:
        return rows, (*columns, *settings)
    return (*rows, *settings), columns


def _default_axes(rows: Fields, columns: Fields) -> tuple[Fields, Fields]:
    """Both axes, if none or one is chosen: methods by metrics of tasks, as far as the chosen axis leaves them."""
    if rows and columns:
        return rows, columns
    if columns:
        if "task" in columns and "metric" not in columns:
            columns = _insert_next_to("task", "metric", columns)
        return tuple(name for name in ("method", *_MEASURED) if name not in columns), columns
    if "task" in rows and "method" not in rows:
        return (rows if "metric" in rows else _insert_next_to("task", "metric", rows)), ("method",)
    return rows or ("method",), tuple(name for name in _MEASURED if name not in rows)


def _insert_next_to(partner: str, name: str, fields: Fields) -> Fields:
    """Fields with a task before its metric, or a metric after its task."""
    place = fields.index(partner) + (name == "metric")
    return (*fields[:place], name, *fields[place:])


def _is_of_method(name: str) -> bool:
    """Whether a field is a setting of the pretraining."""
    return name in (*_METHOD_SETTINGS, "set", "at_epoch", "at_step") or ("." in name and not is_of_task(name))


def _distinguishes(name: str, tidy: pd.DataFrame, present: set[str]) -> bool:
    """Whether a setting of the method ("method.x") differs between records with equal values of the present fields."""
    if not name.startswith("method."):
        return True
    columns = [column_of(field) for field in present if column_of(field) in tidy.columns]
    with_setting = tidy[[*dict.fromkeys([*columns, column_of(name)])]].drop_duplicates()
    return bool(len(with_setting) > len(with_setting[columns].drop_duplicates()))


def _check_field(name: str, tidy: pd.DataFrame) -> None:
    known = list_fields(tidy)
    if column_of(name) not in known:
        raise InputError(f"unknown field {name!r} for rows or columns{nearest(name, known)}")
    if name not in COLUMNS and tidy[name].isna().all():
        raise InputError(f"no record has a setting {name!r}; `mimbench show recipe` lists the settings")
