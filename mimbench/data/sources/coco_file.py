"""The content of a COCO annotation file while it is checked and mended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimbench.data.files.cache import ensure_writable, write_if_changed
from mimbench.data.files.image_sizes import ExifTurns
from mimbench.data.sources.boxes import BoxCount
from mimbench.errors import InputError
from mimbench.text import printable

MENDER_VERSION = "1"
"""Raised whenever the same file would be mended in another way."""
_UNCHANGED = frozenset({"iscrowd absent", "iscrowd as a boolean", "size as a float"})
"""Mended for pycocotools and mmdet, without another meaning than the file had before."""


@dataclass
class CocoFile:
    """The content of an annotation file, mended in place, and what was found in it."""

    path: Path
    folder: Path
    """Of its images."""
    content: dict[str, Any]
    masked: bool = False
    """Every object has a mask."""
    mended: set[str] = field(default_factory=set)
    """Kinds of entries that the file itself has in another form."""
    turns: ExifTurns = field(default_factory=ExifTurns)
    notes: list[str] = field(default_factory=list)
    boxes: BoxCount = field(default_factory=BoxCount)

    @property
    def where(self) -> str:
        return printable(self.path)

    @property
    def names(self) -> list[str]:
        """File names of all images."""
        return [image["file_name"] for image in self.content["images"]]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(category["name"] for category in self.content["categories"])

    @property
    def changes(self) -> list[str]:
        """What gives the file another meaning than pycocotools, and images read upright, would give it."""
        return sorted(self.mended - _UNCHANGED | ({"images as stored"} if self.turns.as_stored else set()))

    def check(self, *files: CocoFile) -> None:
        """Raises InputError if no detector can learn from it, or turned images of `files` contradict its own."""
        if problem := self.boxes.problem(self.where):
            raise InputError(problem)
        ExifTurns(upright=[name for file in files for name in file.turns.upright], either=self.turns.either).check(
            self.where
        )

    def written(self, cache: Path) -> Path:
        """The file itself, or what it was mended to, under its digest in `cache`."""
        if not self.mended:
            return self.path
        content = json.dumps(self.content).encode()
        return write_if_changed(
            ensure_writable(cache) / "coco" / f"{hashlib.sha256(content).hexdigest()[:32]}.json", content
        )


def plain_key(value: Any) -> int | str | None:
    """An id as a whole number or text; None if it is neither."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
