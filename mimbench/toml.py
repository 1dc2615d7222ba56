"""TOML files that people write: read as a whole, or refused in one line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.text_files import read_text

_LARGEST = 4 * 2**20
"""Bytes; recipes and grids have thousands at most."""
_DEEPEST = 32
"""Tables within tables; recipes have five at most."""


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a file; `what` is what messages call it: "recipe file".

    Raises:
        InputError: it is not there, no file, too large, not UTF-8, not TOML, or nested too deeply.
    """
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder; name a TOML file in it")
    if not path.exists():
        raise InputError(f"{what} {path} does not exist")
    if not path.is_file():
        raise InputError(f"{what} {path} is no regular file")
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise InputError(
                f"{what} {path} has {size / 2**20:,.0f} MiB, more than any {what} needs; is it another file?"
            )
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    return parse_toml(read_text(path), f"{what} {path}")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises InputError: it is not TOML, or nested too deeply."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(_too_deep(where)) from error
    if any(depth > _DEEPEST for depth in _depths(table)):
        raise InputError(_too_deep(where))
    return table


def _too_deep(where: str) -> str:
    return f"{where} is nested more than {_DEEPEST} deep, which no recipe is"


def _depths(value: Any) -> Iterator[int]:
    """How deep each part lies; without recursion."""
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        yield depth
        inner = one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
        waiting += [(part, depth + 1) for part in inner]
