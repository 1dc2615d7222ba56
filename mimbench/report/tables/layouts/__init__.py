"""Layouts: papers' tables as small TOML files, filled with published numbers and with our records."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mimbench.errors import InputError, nearest
from mimbench.toml import parse_toml, read_toml


class Layout(BaseModel):
    """Which published numbers a table shows, and what its rows and columns are.

    Fields are those of `mimbench.report.published.numbers.Published`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    rows: tuple[str, ...] = Field(min_length=1)
    """Fields that label the rows."""
    columns: tuple[str, ...] = ("task", "metric")
    """Fields that tell columns of numbers apart."""
    where: tuple[dict[str, Any], ...] = Field(min_length=1)
    """A number is shown that has all values of one of these tables; a list gives alternatives."""
    best: Literal["column", "none"] = "column"
    """Whether the best and the second of a column are marked."""
    difference: tuple[str, str] | None = None
    """Two labels of the first row field: a last row has the numbers of the first minus those of the second."""
    notes: tuple[str, ...] = ()
    """What holds for the whole table."""


def layout_names() -> list[str]:
    """Names of the layouts that come with mimbench."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")
    )


def read_layout(name: str) -> Layout:
    """A layout by its name, or from a TOML file.

    Raises:
        InputError: no such layout, or one that is not valid.
    """
    if name.endswith(".toml"):
        table = read_toml(Path(name), "layout file")
    elif name in layout_names():
        table = parse_toml((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"), f"layout {name}")
    else:
        raise InputError(f"unknown layout {name!r}{nearest(name, layout_names())}")
    try:
        return Layout.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"layout {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
