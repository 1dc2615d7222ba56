"""Recipes as plain tables: reads presets and recipe files, and puts the values of --set over them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from os.path import normpath
from pathlib import Path
from typing import Any

from mimbench._version import __version__
from mimbench.errors import InputError, nearest
from mimbench.recipe.packages import PackageFile, find_recipe, package_recipes, preset_tables
from mimbench.toml import parse_toml, read_toml

Table = dict[str, Any]

SECTIONS = ("data", "datasets", "input", "encoder", "encoders", "method", "pretrain", "tasks", "sources")
"""Tables of a recipe. [datasets.NAME] and [encoders.NAME] apply only if that dataset or encoder is chosen, so that
--set encoder.name=swin also switches the options. [methods.NAME] may hold any of these tables for one method."""
_IN_STEPS = {
    "epochs": "steps",
    "at_epoch": "at_step",
    "warmup_epochs": "warmup_steps",
    "milestones": "milestone_steps",
}
_OTHER_UNIT = _IN_STEPS | {steps: epochs for epochs, steps in _IN_STEPS.items()}
_LONGEST_PATH = 32
"""Maximum number of dots in a path."""
HEADER = ("summary", "extends", "methods")
"""Other keys at the top of a recipe."""
_MIMBENCH = f"mimbench {__version__}"


def preset_names() -> list[str]:
    """The presets that ship with mimbench."""
    folder = files("mimbench.recipe.presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def recipe_names() -> list[str]:
    """Presets, and the recipes of installed packages."""
    return sorted({*preset_names(), *package_recipes()})


def owner_of(name: str) -> str:
    """Name and version of the package that ships a recipe; of a file its path.

    Raises:
        InputError: two packages ship a recipe of this name.
    """
    if is_file(name):
        return name
    file = _package_recipe(name)
    return file.owner if file else _MIMBENCH


def read(name: str) -> Table:
    """Read a preset or a package's recipe by name, or a recipe file by path, merged over the recipe that it extends.

    A preset includes the tables that installed packages ship for it.

    `sources` of the result has an entry per value, by dotted path: the source that the recipe states for the value or
    for its table, "" if there is none. When a recipe overrides a value, it so overrides the source too.

    Raises:
        InputError: no such recipe, not TOML, extends itself, or has a table that recipes do not have.
    """
    return _read(name, ())


def for_method(document: Table, method: str) -> Table:
    """The document for one method: its [methods.NAME] tables merged in, those of other methods left out."""
    shared = {key: value for key, value in document.items() if key in SECTIONS}
    return merge(shared, document.get("methods", {}).get(method, {}))


def merge(under: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> Table:
    """`under` with the values of `over`. Tables are merged key by key; everything else is replaced.

    A length of a training is replaced in its other unit too: `steps` of `over` removes `epochs` of `under`.

    Args:
        where: path of both tables, with a dot at the end; "" for whole documents.
    """
    merged = without_other_unit(under, over, where)
    for key, value in over.items():
        below: Any = merged.get(key)
        # The keys of [sources] are paths of the document.
        path = "" if key == "sources" else f"{where}{key}."
        both_tables = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value, path) if both_tables else value
    return merged


def without_other_unit(under: Mapping[str, Any], over: Mapping[str, Any], where: str) -> Table:
    """`under` without the keys that `over` sets in the other unit. `where`: as in `merge`."""
    replaced = {other_unit(f"{where}{key}") for key, value in over.items() if value not in (None, "none")}
    return {key: value for key, value in under.items() if f"{where}{key}" not in replaced}


def other_unit(path: str) -> str | None:
    """The path of the setting that gives the same length in steps instead of epochs, or the other way round.

    None if the path is not that of a length in [pretrain] or in the `train` table of a task.
    """
    *tables, key = path.split(".")
    is_length = key in _OTHER_UNIT and not {"pretrain", "train"}.isdisjoint(tables)
    return ".".join([*tables, _OTHER_UNIT[key]]) if is_length else None


def parse_value(text: str) -> Any:
    """The value that TOML reads from `text`, or `text` itself if it is no TOML value."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse values of --set: ["a.b=c", ...] -> {"a.b": c}.

    Raises:
        InputError: there is no "=", or the path does not start with a table of a recipe.
    """
    parsed = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"--set {assignment!r} has no '='; write it as --set table.key=value")
        parsed[checked_path(path.strip(), "--set")] = parse_value(text.strip())
    return parsed


def parse_variations(variations: Iterable[str]) -> dict[str, list[Any]]:
    """Parse values of --vary: ["a.b=x,y,z", ...] -> {"a.b": [x, y, z]}."""
    parsed = {}
    for variation in variations:
        path, separator, text = variation.partition("=")
        if not separator or not text.strip():
            raise InputError(f"--vary {variation!r} lists no values; write it as --vary table.key=x,y,z")
        values = parse_value(f"[{text}]")
        if not isinstance(values, list):
            values = [parse_value(part.strip()) for part in text.split(",")]
        parsed[checked_path(path.strip(), "--vary")] = values
    return parsed


def put(document: Table, path: str, value: Any) -> Table:
    """A copy of `document` with the value at a dotted path replaced."""
    head, _, rest = path.partition(".")
    copy = dict(document)
    below = copy.get(head)
    copy[head] = put(dict(below) if isinstance(below, Mapping) else {}, rest, value) if rest else value
    return copy


def remove(document: Table, path: str) -> Table:
    """A copy of `document` without the key at a dotted path, if it has one."""
    head, _, rest = path.partition(".")
    if not rest:
        return {key: value for key, value in document.items() if key != head}
    below = document.get(head)
    return {**document, head: remove(dict(below), rest)} if isinstance(below, Mapping) else document


def _read(name: str, extending: tuple[str, ...]) -> Table:
    if name in extending:
        raise InputError(f"recipe {name!r} extends itself: {' extends '.join([*extending, name])}")
    document = _parse(name)
    _check(document, name, "")
    if not is_file(name) and name in preset_names():
        for owner, tables in preset_tables(name):
            _check(tables, f"{name}, tables of {owner}", owner)
            document = merge(document, tables)
    base = document.pop("extends", None)
    return merge(_read(_base_path(name, str(base)), (*extending, name)), document) if base else document


def _check(document: Table, name: str, source: str) -> None:
    """Refuse tables that recipes do not have, and write the source of each value, by default `source`, next to it."""
    _check_keys(document, SECTIONS + HEADER, name, "")
    _attribute(document, source)
    overlays = document.get("methods", {})
    _check_tables(overlays, name, "methods")
    for method, overlay in overlays.items():
        _check_keys(overlay, SECTIONS, name, f"methods.{method}.")
        _attribute(overlay, source)


def _base_path(name: str, base: str) -> str:
    """The recipe that a recipe extends: a name, or a file whose path is relative to the folder of the recipe."""
    if not is_file(base):
        return base
    file = None if is_file(name) else _package_recipe(name)
    return normpath((file.path if file else Path(name)).parent / base)


def _package_recipe(name: str) -> PackageFile | None:
    return find_recipe(name, dict.fromkeys(preset_names(), _MIMBENCH))


def is_file(name: str) -> bool:
    """Whether the name of a recipe is the path of a file; otherwise it is a preset or the recipe of a package."""
    return name.endswith(".toml") or "/" in name


def _check_keys(tables: Table, known: tuple[str, ...], name: str, prefix: str) -> None:
    for key in tables:
        if key not in known:
            raise InputError(f"unknown table [{prefix}{key}] in recipe {name!r}{nearest(key, known)}")
    _check_tables({key: tables[key] for key in SECTIONS if key in tables}, name, prefix.rstrip("."))


def _check_tables(tables: Any, name: str, where: str) -> None:
    if not isinstance(tables, Mapping):
        raise InputError(f"{where} is a table of a recipe, not {tables!r}, in recipe {name!r}")
    for key, table in tables.items():
        if not isinstance(table, Mapping):
            path = f"{where}.{key}" if where else key
            raise InputError(f"{path} is a table of a recipe, not {table!r}, in recipe {name!r}")


def _attribute(tables: Table, default: str) -> None:
    """Write the source of every value into `tables["sources"]`; see `source_of`. `default` is that of all others.

    A source may also belong to a key that the recipe leaves out on purpose (no clipping).
    """
    sources = dict(values(tables.get("sources", {})))
    paths = [path for path, _ in values({key: tables[key] for key in SECTIONS[:-1] if key in tables})]
    absent = [path for path in sources if not any(f"{set_}.".startswith(f"{path}.") for set_ in paths)]
    tables["sources"] = {path: source_of(path, sources) or default for path in paths + absent}


def values(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything in a table that is no table itself."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def source_of(path: str, sources: Mapping[str, Any]) -> str:
    """The source of a dotted path, else that of the nearest table around it, else ""."""
    while path and path not in sources:
        path = path.rpartition(".")[0]
    return " ".join(str(sources.get(path, "")).split())


def _parse(name: str) -> Table:
    if is_file(name):
        return read_toml(Path(name), "recipe file")
    file = _package_recipe(name)
    if file:
        return file.read()
    if name not in preset_names():
        raise InputError(f"unknown recipe {name!r}{nearest(name, recipe_names())}")
    text = files("mimbench.recipe.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_toml(text, f"preset {name}")


def checked_path(path: str, flag: str) -> str:
    """Return `path`. Raises InputError, which names `flag`, if it is not the path of a key of a recipe."""
    allowed = ("data", "datasets", "input", "encoder", "encoders", "method", "methods", "pretrain", "task", "tasks")
    head, _, rest = path.partition(".")
    if head not in allowed:
        raise InputError(f"unknown key {path!r} in {flag}{nearest(head, allowed)}")
    if not rest:
        raise InputError(f"{flag} {path!r} names a table; name a key in it: {path}.KEY=VALUE")
    if not all(path.split(".")) or path.count(".") > _LONGEST_PATH:
        raise InputError(f"{flag} {path[:80]!r} is no path of a key; write it as table.key=value")
    return path
