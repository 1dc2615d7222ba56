"""The base of every typed option table: recipes, methods, encoders, datasets and tasks."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Typed, keyword-only and frozen; an unknown key or an impossible value is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def shaping(self) -> dict[str, Any]:
        """The values that shape the result, as plain JSON data: all but cosmetic ones and what is `left_out`."""
        return {
            name: _plain(getattr(self, name))
            for name in type(self).model_fields
            if not self.is_cosmetic(name) and not self._is_left_out(name)
        }

    def left_out(self) -> dict[str, Any]:
        """Values of `added` fields at their default, by dotted path; `shaping` does without them."""
        found = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if self._is_left_out(name):
                found[name] = _plain(value)
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


def cosmetic(default: Any, **constraints: Any) -> Any:
    """A field that changes how a run goes (workers, paths), never what it computes.

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


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.shaping()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
