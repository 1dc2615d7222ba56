"""Config, the base of all typed options: of recipes, methods, encoders, datasets and tasks."""

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


class OptionError(InputError):
    """An option whose value has no place in a fingerprint.

    Args:
        path: of the option within its config, such as "schedule.table".
        problem: what is wrong with it, and the remedy.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


Depth = Annotated[int, Field(le=1000)]
"""A number of layers. It is limited because each layer takes time to build, so a typo could run for hours."""


class Config(BaseModel):
    """Typed options, given by keyword and frozen. An unknown key or an impossible value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before", check_fields=False)
    @classmethod
    def _is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false as numbers, which Python accepts as 1 and 0, and integers that are too large."""
        field = cls.model_fields[info.field_name or ""]
        parts = set(parts_of(field.annotation))
        items = value if isinstance(value, list | tuple) else [value]
        if parts & {int, float} and not parts & {bool, Any}:
            for item in items:
                if isinstance(item, bool):
                    raise ValueError(f"{str(item).lower()} is not a number")
        if int in parts and any(isinstance(item, int | float) and abs(item) > _LARGEST for item in items):
            raise ValueError(f"{value} is too large; the maximum is {_LARGEST}")
        return value

    def shaping(self) -> dict[str, Any]:
        """The values that shape the result, as plain JSON data, for fingerprints and protocols.

        Cosmetic fields and those of `left_out` are not among them. A path becomes the hash of the file's content, so
        that another file under the same name is another value.

        Raises:
            OptionError: a file is not readable. Its message names the option; `shaping_at` adds the table's path.
        """
        return {
            name: _plain(getattr(self, name), name)
            for name in type(self).model_fields
            if not self.is_cosmetic(name) and not self._is_left_out(name)
        }

    def left_out(self) -> dict[str, Any]:
        """The `added` fields that are at their default, which `shaping` omits: dotted path -> value."""
        omitted = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if self._is_left_out(name):
                omitted[name] = _plain(value, name)
            elif isinstance(value, Config):
                omitted |= {f"{name}.{path}": inner for path, inner in value.left_out().items()}
        return omitted

    def _is_left_out(self, name: str) -> bool:
        field = type(self).model_fields[name]
        return _is_marked(field, "added") and getattr(self, name) == field.default

    @classmethod
    def is_cosmetic(cls, name: str) -> bool:
        """Whether a field is declared with `cosmetic`. False for an unknown name."""
        field = cls.model_fields.get(name)
        return field is not None and _is_marked(field, "cosmetic")


def shaping_at(config: Config, where: str) -> dict[str, Any]:
    """`config.shaping()`, whose errors name options by their full path.

    Args:
        where: path of the table, such as "pretrain".

    Raises:
        InputError: a file is not readable.
    """
    try:
        return config.shaping()
    except OptionError as error:
        raise OptionError(f"{where}.{error.path}", error.problem) from error.__cause__


def parts_of(annotation: Any) -> Iterator[Any]:
    """The types in an annotation. For `set[str] | None`: set, str and NoneType."""
    origin = get_origin(annotation)
    if origin is typing.Literal:
        return
    if origin is None:
        yield annotation
        return
    if inspect.isclass(origin) and origin not in (types.UnionType, typing.Annotated):
        yield origin
    arguments = get_args(annotation)
    if origin is typing.Annotated:
        arguments = arguments[:1]  # the others are constraints
    for argument in arguments:
        yield from parts_of(argument)


def cosmetic(default: Any, **constraints: Any) -> Any:
    """Declare a field that changes how a run goes (workers, folders) but not what it computes.

    It is not part of any fingerprint, so changing it does not start a new pretraining.

    Args:
        default: the field's default.
        constraints: arguments of pydantic's Field, such as `ge=0`.
    """
    return Field(default, json_schema_extra={"cosmetic": True}, **constraints)


def added(default: Any, **constraints: Any) -> Any:
    """Declare a field that is new in a Config which recorded results already use.

    The default must do what happened before. At its default the field is not part of fingerprints, so the recorded
    results stay valid. To compare two configs, compare `left_out` as well as `shaping`.

    Args:
        default: the field's default.
        constraints: arguments of pydantic's Field, such as `ge=0`.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def _is_marked(field: FieldInfo, mark: str) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get(mark))


def _plain(value: Any, option: str) -> Any:
    if isinstance(value, Config):
        return shaping_at(value, option)
    if isinstance(value, tuple | list):
        return [_plain(item, option) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item, option) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        raise OptionError(option, "it is a set, which has no stable order; use a list")
    if isinstance(value, Path):
        return _content(value, option)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _content(path: Path, option: str) -> str:
    if path.is_dir():
        raise OptionError(
            option,
            f"{path} is a folder, and fingerprints need a file's content; set it to a file (the plugin's author may "
            "declare the option as cosmetic, or add the folder's content in Config.shaping)",
        )
    if path.exists() and not path.is_file():
        raise OptionError(option, f"{path} is a device, pipe or socket; set it to a file")
    try:
        return _digest(path, FileState.read(path))
    except OSError as error:
        raise OptionError(
            option, f"{path} cannot be read ({error.strerror or error}); set it to a readable file"
        ) from error


@lru_cache(maxsize=256)
def _digest(path: Path, state: FileState) -> str:
    """Hash of a file's content. It is computed once per process as long as the file does not change."""
    return f"sha256:{file_sha256(path)}"
