"""Pydantic's findings, as one line that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mimbench.errors import InputError, nearest

Model = TypeVar("Model", bound=BaseModel)


def validated(cls: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Build `cls` from `values`; `where` is the table they stand in, such as "pretrain".

    Raises:
        InputError: the first offence, with the key's full path and, for an unknown key, the nearest.
    """
    try:
        return cls(**values)
    except ValidationError as error:
        raise InputError(_first_offence(cls, error, where)) from error


def knows(cls: type[BaseModel], path: str) -> bool:
    """Whether `cls` has a field at a dotted path."""
    head, _, rest = path.partition(".")
    field = cls.model_fields.get(head)
    if field is None:
        return False
    inner = field.annotation
    if not rest or not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return True
    return knows(inner, rest)


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
