"""Grid files: the settings of `mimbench run` as TOML, which can be kept in git."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from mimbench.errors import InputError, nearest
from mimbench.options import SEEDS, are_seeds
from mimbench.recipe import document as recipe_document
from mimbench.toml import read_toml

KEYS = ("summary", "methods", "tasks", "recipe", "seeds", "results", "set", "vary", "executor")


@dataclass(frozen=True)
class GridFile:
    """What a grid file says; None where it says nothing."""

    methods: list[str] | None = None
    tasks: list[str] | None = None
    recipe: str | None = None
    seeds: list[int] | None = None
    results: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """By dotted path, like --set."""
    variations: dict[str, list[Any]] = field(default_factory=dict)
    """Values by dotted path, like --vary."""
    executor: dict[str, Any] = field(default_factory=dict)
    """Options of the executor that --executor names."""


def read_grid(path: Path) -> GridFile:
    """Read and check a grid file. A recipe file and the results folder are relative to it.

    Raises:
        InputError: it is not there, not TOML, or has an unknown key or a value of the wrong kind.
    """
    table = read_toml(path, "grid file")
    for key in table:
        if key not in KEYS:
            raise InputError(f"unknown key {key!r} in grid {path}{nearest(key, KEYS)}")
    _expect(path, table, "summary", "a text", lambda value: isinstance(value, str))
    for key in ("methods", "tasks"):
        _expect(path, table, key, 'a list of names, such as ["simmim", "mae"]', _is_list_of(str))
    _expect(path, table, "seeds", f"a list of {SEEDS}, such as [0, 1, 2]", are_seeds)
    for key in ("recipe", "results"):
        _expect(path, table, key, "a text", lambda value: isinstance(value, str) and value != "")
    _expect(path, table, "executor", 'a table, such as partition = "gpu"', lambda value: isinstance(value, Mapping))
    for key in ("set", "vary"):
        _expect(
            path, table, key, 'a table, such as "method.mask_ratio" = ...', lambda value: isinstance(value, Mapping)
        )
    return GridFile(
        methods=_distinct(table.get("methods")),
        tasks=_distinct(table.get("tasks")),
        recipe=_recipe(path, table.get("recipe")),
        seeds=_distinct(table.get("seeds")),
        results=Path(normpath(path.parent / table["results"])) if "results" in table else None,
        settings=_paths(path, table, "set"),
        variations=_variations(path, table),
        executor=dict(table.get("executor", {})),
    )


def _expect(path: Path, table: Mapping[str, Any], key: str, what: str, fits: Callable[[Any], bool]) -> None:
    if key in table and not fits(table[key]):
        raise InputError(f"{key} in grid {path} is {what}, not {table[key]!r}")


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and value != [] and all(isinstance(item, kind) for item in value)


def _distinct(values: list[Any] | None) -> list[Any] | None:
    return None if values is None else list(dict.fromkeys(values))


def _recipe(path: Path, name: str | None) -> str | None:
    """A preset's name as it is; a file's path from the grid's own folder."""
    return normpath(path.parent / name) if name and recipe_document.is_file(name) else name


def _paths(path: Path, table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Dotted paths, whether they are written as such or as tables within tables."""
    flag = f"[{key}] of grid {path}"
    return {
        recipe_document.checked_path(dotted, flag): value
        for dotted, value in recipe_document.values(table.get(key, {}))
    }


def _variations(path: Path, table: Mapping[str, Any]) -> dict[str, list[Any]]:
    variations = _paths(path, table, "vary")
    for dotted, values in variations.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"[vary] of grid {path}: {dotted} is a list of values to run, not {values!r}")
    return variations
