"""Values that many records share, each kept once: what makes a page of 10,000 records small enough to open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimbench.store.sealing import canonical_text


class Pool:
    """Plain data by number. Equal values have one number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._by_text: dict[str, int] = {}
        self._by_object: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> int:
        """The number of `value`. It is held, so the identity that a record's part is found again by stays its own."""
        known = self._by_object.get(id(value))
        if known is not None:
            return known[0]
        number = self._by_text.setdefault(canonical_text(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        self._by_object[id(value)] = number, value
        return number

    def tables(self, value: Mapping[str, Any]) -> dict[str, int]:
        """Each entry by itself: recipes of a grid differ in one table and share the rest."""
        return {key: self.add(entry) for key, entry in value.items()}
