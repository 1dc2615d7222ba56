"""Values that many records share, each stored once, so that a page of 10,000 records is small enough to open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimbench.store.sealing import canonical_text


class SharedValues:
    """Plain data by number. Equal values have the same number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._by_text: dict[str, int] = {}
        self._by_object: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> int:
        """The number of a value."""
        known = self._by_object.get(id(value))
        if known is not None:
            return known[0]
        number = self._by_text.setdefault(canonical_text(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        # The value is stored too: as long as it lives, no other object gets its id.
        self._by_object[id(value)] = number, value
        return number

    def add_tables(self, value: Mapping[str, Any]) -> dict[str, int]:
        """The number of each entry, since recipes of a grid differ in one table and share the others."""
        return {key: self.add(entry) for key, entry in value.items()}
