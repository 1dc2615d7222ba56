"""The base of every typed option table: recipes, methods, encoders, datasets and tasks."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from mimbench.errors import InputError
from mimbench.files import FileState, file_sha256

_LARGEST = 2**32 - 1
Depth = Annotated[int, Field(le=1000)]
"""How many layers follow each other: each takes its time to build, so that absurd numbers never end."""


class Config(BaseModel):
    """Typed, keyword-only and frozen; an unknown key or an impossible value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before", check_fields=False)
    @classmethod
    def _is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for numbers, which Python takes for 1 and 0, and whole numbers beyond all use."""
        field = cls.model_fields[info.field_name or ""]
        forms = set(parts_of(field.annotation))
        values = value if isinstance(value, list | tuple) else [value]
        if not forms & {bool, Any} and forms & {int, float}:
            wrong = next((one for one in values if isinstance(one, bool)), None)
            if wrong is not None:
                raise ValueError(f"{str(wrong).lower()} is no number")
        if int in forms and any(isinstance(one, int | float) and abs(one) > _LARGEST for one in values):
            raise ValueError(f"{value} is too large; {_LARGEST} is the most")
        return value

    def shaping(self) -> dict[str, Any]:
        """The values that shape the result, as plain JSON data: all but cosmetic ones and what is `left_out`.

        A path stands for the content of its file, so that another file under the same name is another value.

        Raises:
            InputError: a path names no readable file.
        """
        return {
            name: _plain(getattr(self, name), name)
            for name in type(self).model_fields
            if not self.is_cosmetic(name) and not self._is_left_out(name)
        }

    def left_out(self) -> dict[str, Any]:
        """Values of `added` fields at their default, by dotted path; `shaping` does without them."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if self._is_left_out(name):
                found[name] = _plain(value, name)
            elif isinstance(value, Config):
                found |= {f"{name}.{path}": inner for path, inner in value.left_out().items()}
        return found

    def _is_left_out(self, name: str) -> bool:
        field = type(self).model_fields[name]
        return _is_marked(field, "added") and getattr(self, name) == field.default

    @classmethod
    def is_cosmetic(cls, name: str) -> bool:
        """Whether a field shapes no result; of an unknown one, False."""
        field = cls.model_fields.get(name)
        return field is not None and _is_marked(field, "cosmetic")


def parts_of(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of, such as set and str for `set[str] | None`."""
    origin = get_origin(annotation)
    if origin is typing.Literal:
        return
    if origin is None:
        yield annotation
        return
    if inspect.isclass(origin) and origin not in (types.UnionType, typing.Annotated):
        yield origin
    arguments = get_args(annotation)
    for argument in arguments[:1] if origin is typing.Annotated else arguments:
        yield from parts_of(argument)


def cosmetic(default: Any, **constraints: Any) -> Any:
    """A field that changes how a run goes (workers, folders), never what it computes.

    It stays out of every fingerprint, so that changing it never pretrains anew.
    """
    return Field(default, json_schema_extra={"cosmetic": True}, **constraints)


def added(default: Any, **constraints: Any) -> Any:
    """A field that a Config got after results were recorded with it.

    At its default, which must be what happened before, it stays out of fingerprints, so those results stay valid.
    Whoever compares two configs by `shaping` must therefore look at `left_out` too.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def _is_marked(field: FieldInfo, mark: str) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get(mark))


def _plain(value: Any, option: str) -> Any:
    if isinstance(value, Config):
        return value.shaping()
    if isinstance(value, tuple | list):
        return [_plain(item, option) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, option) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        raise InputError(f"option {option!r} holds a set, which has no stable order; use a list")
    if isinstance(value, Path):
        return _content(value, option)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _content(path: Path, option: str) -> str:
    if path.is_dir():
        raise InputError(
            f"option {option!r}: {path} is a folder, and only a file's content enters fingerprints; give a file (the "
            "plugin's author may mark the option as cosmetic, or give its content in Config.shaping)"
        )
    if path.exists() and not path.is_file():
        raise InputError(f"option {option!r}: {path} is a device, pipe or socket; give a file")
    try:
        return _digest(path, FileState.of(path))
    except OSError as error:
        raise InputError(
            f"option {option!r}: {path} cannot be read ({error.strerror or error}); give a file"
        ) from error


@lru_cache(maxsize=256)
def _digest(path: Path, state: FileState) -> str:
    """Hash of a file's content, computed once per process while the file stays the same."""
    return f"sha256:{file_sha256(path)}"
