"""Pictures and files of records: finds them, and checks whether they are as recorded."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from mimbench.files import file_sha256
from mimbench.store.reading import RECORDS

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
SELF_CHECKED = (".png",)
"""Formats that hold checksums of their own."""


class OutsideError(ValueError):
    """A path of a record that leads out of its results folder."""


def results_folders(record: Path) -> list[Path]:
    """The folders that a record's artifacts may be relative to, the nearest first: each one above a `records`."""
    above = [parent.parent for parent in record.parents if parent.name == RECORDS]
    return above or [record.parent]


def find_artifact(roots: Iterable[Path], relative: str) -> Path | None:
    """The file `relative` in the first of the results folders that has it; None: none has it.

    Raises:
        OutsideError: the path, or a link on it, leads out of every one of the folders.
    """
    is_inside = False
    for root in roots:
        path = path_within(root, relative)
        if path is not None:
            is_inside = True
            if path.is_file():
                return path
    if not is_inside:
        raise OutsideError(f"{relative} leads out of the results folder")
    return None


def path_within(root: Path, relative: str) -> Path | None:
    """The path without links; None where it, or a link on it, leads out of `root`."""
    try:
        path = (root / relative).resolve()
        return path if path.is_relative_to(_resolved(root.absolute())) else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None


def damage_of(path: Path, sha256: str | None) -> str:
    """What is wrong with a file, as the predicate of a sentence; "": nothing that can be seen.

    Without a hash a picture is decoded instead. That sees all damage to a PNG, which has checksums of its own.
    """
    try:
        if sha256 is not None:
            return "" if file_sha256(path) == sha256 else "does not have the sha256 in the record: damaged or replaced"
        if path.stat().st_size == 0:
            return "is empty"
        return _undecodable(path) if is_picture(path) else ""
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


@functools.cache
def _resolved(root: Path) -> Path:
    return root.resolve()


def _undecodable(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as picture:
            picture.verify()
    except Exception as error:  # Pillow raises many classes for damaged files
        return f"is a damaged picture ({' '.join(str(error).split()) or type(error).__name__})"
    return ""
