"""Recipe files: TOML presets and files of one's own, and what --set puts over them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mimbench.errors import InputError, nearest

Table = dict[str, Any]

SECTIONS = ("data", "input", "encoder", "encoders", "method", "pretrain", "tasks", "sources")
"""Tables of a recipe. [encoders.NAME] holds for that encoder alone, so that `encoder.name` can be switched;
[methods.NAME] may hold any of these tables for one method alone."""
HEADER = ("summary", "extends", "methods")


def preset_names() -> list[str]:
    """The presets that ship with mimbench."""
    folder = files("mimbench.recipe.presets")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read(name: str) -> Table:
    """Read a preset by name, or a recipe file by path, with what it extends beneath it.

    Raises:
        InputError: no such recipe, not TOML, or a table that recipes do not have.
    """
    document = _parse(name)
    for key in document:
        if key not in SECTIONS + HEADER:
            raise InputError(f"unknown table [{key}] in recipe {name!r}{nearest(key, SECTIONS + HEADER)}")
    for method, overlay in document.get("methods", {}).items():
        for key in overlay:
            if key not in SECTIONS:
                raise InputError(f"unknown table [methods.{method}.{key}] in recipe {name!r}{nearest(key, SECTIONS)}")
    base = document.pop("extends", None)
    return merge(read(base), document) if base else document


def for_method(document: Table, method: str) -> Table:
    """The document as `method` sees it: its own overlay merged in, the others' left out."""
    shared = {key: value for key, value in document.items() if key in SECTIONS}
    return merge(shared, document.get("methods", {}).get(method, {}))


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """`over` laid on `under`: tables merge, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both_tables else value
    return merged


def parse_value(text: str) -> Any:
    """A value as TOML would read it; what TOML cannot read is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """["a.b=c", ...] as given to --set -> {"a.b": value}.

    Raises:
        InputError: no "=", or a path that starts with no table of a recipe.
    """
    parsed = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise InputError(f"--set {assignment!r} has no '='; write it as --set table.key=value")
        parsed[_checked_path(path.strip(), "--set")] = parse_value(text.strip())
    return parsed


def parse_variations(variations: Iterable[str]) -> dict[str, list[Any]]:
    """["a.b=x,y,z", ...] as given to --vary -> {"a.b": [x, y, z]}."""
    parsed = {}
    for variation in variations:
        path, separator, text = variation.partition("=")
        if not separator or not text.strip():
            raise InputError(f"--vary {variation!r} lists no values; write it as --vary table.key=x,y,z")
        values = parse_value(f"[{text}]")
        if not isinstance(values, list):
            values = [parse_value(part.strip()) for part in text.split(",")]
        parsed[_checked_path(path.strip(), "--vary")] = values
    return parsed


def put(document: Table, path: str, value: Any) -> Table:
    """A copy of `document` with the value at a dotted path replaced."""
    head, _, rest = path.partition(".")
    copy = dict(document)
    below = copy.get(head, {})
    copy[head] = put(below if isinstance(below, Mapping) else {}, rest, value) if rest else value
    return copy


def _parse(name: str) -> Table:
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"recipe file {name} does not exist")
        text, where = path.read_text(encoding="utf-8"), name
    else:
        if name not in preset_names():
            raise InputError(f"unknown recipe {name!r}{nearest(name, preset_names())}")
        text = files("mimbench.recipe.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        where = f"preset {name}"
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from error


def _checked_path(path: str, flag: str) -> str:
    allowed = ("data", "input", "encoder", "encoders", "method", "methods", "pretrain", "task", "tasks")
    head, _, rest = path.partition(".")
    if head not in allowed:
        raise InputError(f"unknown key {path!r} in {flag}{nearest(head, allowed)}")
    if not rest:
        raise InputError(f"{flag} {path!r} names a table; name a key in it: {path}.KEY=VALUE")
    return path
