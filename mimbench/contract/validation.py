"""Options checked by pydantic, with errors as one line that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mimbench.errors import InputError, nearest

Model = TypeVar("Model", bound=BaseModel)

NONE = "none"
"""Sets an optional value to None, which TOML cannot express, e.g. to override a preset or protocol."""


def validate(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build a config from the values of a table.

    The text "none" means None for a field that may be None.

    Args:
        cls: the config.
        values: option -> value.
        where: path of the table, such as "pretrain", for messages.

    Raises:
        InputError: the first error, with the key's full path and, for an unknown key, the closest known one.
    """
    try:
        return cls(**_replace_none(cls, values))
    except ValidationError as error:
        raise InputError(_describe_first(cls, error, where)) from error


def _replace_none(cls: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with None for each "none" that means it, in nested tables too."""
    replaced = dict(values)
    for key, value in values.items():
        field = cls.model_fields.get(key)
        types = _union_members(field.annotation) if field else ()
        is_a_choice = any(NONE in _choices(one) for one in types)  # "none" may also be a word of a Literal
        if value == NONE and NoneType in types and not is_a_choice:
            replaced[key] = None
        elif isinstance(value, Mapping):
            table = next((one for one in types if isinstance(one, type) and issubclass(one, BaseModel)), None)
            replaced[key] = _replace_none(table, value) if table else value
    return replaced


def _union_members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _choices(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def has_option(cls: type[BaseModel], path: str) -> bool:
    """Whether the config has a field at a dotted path, such as "train.epochs"."""
    head, _, rest = path.partition(".")
    field = cls.model_fields.get(head)
    if field is None:
        return False
    inner = field.annotation
    if not rest or not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return True
    return has_option(inner, rest)


def _describe_first(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    path = ".".join([where, *location])
    if first["type"] == "extra_forbidden":
        return f"unknown key {path!r}{nearest(location[-1], _fields_at(cls, location[:-1]))}"
    if first["type"] == "missing":
        return f"{path} is missing: set it in the recipe or with --set {path}=VALUE"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "value_error":
        # An error of several options begins with the name of one.
        names_option = message.partition(" ")[0].partition("=")[0] in _fields_at(cls, location)
        return f"{path}{'.' if names_option else ': '}{message}"
    return f"{path} = {first['input']!r}: it must be {message}"


def _fields_at(cls: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the fields of the table at `location`."""
    for part in location:
        field = cls.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        cls = field.annotation
    return list(cls.model_fields)
