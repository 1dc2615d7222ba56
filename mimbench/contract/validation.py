"""Pydantic's findings, as one line that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mimbench.errors import InputError, nearest

Model = TypeVar("Model", bound=BaseModel)

NONE = "none"
"""Leaves out an optional value that a preset, a protocol or a default has: TOML has no word for nothing."""


def validate(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build `cls` from `values`; `where` is the table they stand in, such as "pretrain".

    "none" means None for a field that may be None.

    Raises:
        InputError: the first offence, with the key's full path and, for an unknown key, the nearest.
    """
    try:
        return cls(**_with_nones(cls, values))
    except ValidationError as error:
        raise InputError(_first_offence(cls, error, where)) from error


def _with_nones(cls: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    meant = dict(values)
    for key, value in values.items():
        field = cls.model_fields.get(key)
        forms = _alternatives(field.annotation) if field else ()
        if value == NONE and NoneType in forms and not any(NONE in _words(form) for form in forms):
            meant[key] = None
        elif isinstance(value, Mapping):
            inner = next((form for form in forms if isinstance(form, type) and issubclass(form, BaseModel)), None)
            meant[key] = _with_nones(inner, value) if inner else value
    return meant


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _words(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def has_option(cls: type[BaseModel], path: str) -> bool:
    """Whether `cls` has a field at a dotted path."""
    head, _, rest = path.partition(".")
    field = cls.model_fields.get(head)
    if field is None:
        return False
    inner = field.annotation
    if not rest or not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return True
    return has_option(inner, rest)


def _first_offence(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    offence = error.errors()[0]
    location = [str(part) for part in offence["loc"]]
    path = ".".join([where, *location])
    if offence["type"] == "extra_forbidden":
        return f"unknown key {path!r}{nearest(location[-1], _siblings(cls, location[:-1]))}"
    if offence["type"] == "missing":
        return f"{path} is missing: give it in the recipe or with --set {path}=VALUE"
    message = offence["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if offence["type"] == "value_error":
        return f"{path}: {message}"
    return f"{path} = {offence['input']!r}: it should be {message}"


def _siblings(cls: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = cls.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        cls = field.annotation
    return list(cls.model_fields)
