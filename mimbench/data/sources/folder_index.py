"""What opening an image folder results in, kept in the cache until something in the folder changes.

A second opening then lists, sorts, parses and hashes nothing. It asks the file system for the state of each folder and
file that the first one saw, and compares (see `TreeState`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mimbench.data.files.cache import read_checked, write_checked
from mimbench.data.files.image_inspection import INSPECTION_VERSION
from mimbench.data.files.image_reading import READER_VERSION, PixelPolicy
from mimbench.data.files.tree_state import TreeState

INDEX_VERSION = "1"
"""Raised whenever the same folder would be opened in another way."""
INDEX_FROM = 1000
"""Files and folders. Smaller ones are read as fast as an index of them."""
_SPLIT = b"\0"
"""Between names: the one byte that no path has."""


class Part(NamedTuple):
    """The images of a split."""

    names: list[bytes]
    """Paths relative to the root."""
    labels: np.ndarray
    """int64 [N]"""


@dataclass(frozen=True)
class FolderContent:
    """What opening a folder results in."""

    parts: Mapping[str, Part]
    """By name of the split."""
    classes: tuple[str, ...]
    is_labelled: bool
    policy: PixelPolicy
    """How stored values become grey levels, decided for all images together."""
    fingerprint: str
    notes: tuple[str, ...]
    facts: Mapping[str, Any]
    skipped: tuple[str, ...]
    """Names of unreadable images that were left out."""


class FolderIndex:
    """The index of one folder, opened with one set of options."""

    def __init__(self, cache: Path, root: Path, options: Sequence[Any]) -> None:
        """options: all that decides how the folder is opened, as plain data."""
        self.root = root
        versions = (INDEX_VERSION, READER_VERSION, INSPECTION_VERSION)
        identity = repr((versions, os.fsencode(root), os.fsencode(root.resolve()), *options))
        self.path = cache / f"folder-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.index"

    def load(self) -> FolderContent | None:
        """What the folder held when it was last opened; None if it was not, or may have changed since."""
        content = read_checked(self.path)
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            tree = TreeState(about["examined"], _split_names(file["tree_names"]), file["tree_states"])
            if not tree.is_current(self.root):
                return None
            parts = {name: Part(_split_names(file[f"names_{name}"]), file[f"labels_{name}"]) for name in about["parts"]}
        return FolderContent(
            parts=parts,
            classes=tuple(about["classes"]),
            is_labelled=about["is_labelled"],
            policy=_policy_of(about["policy"]),
            fingerprint=about["fingerprint"],
            notes=tuple(about["notes"]),
            facts=about["facts"],
            skipped=tuple(about["skipped"]),
        )

    def save(self, tree: TreeState, content: FolderContent) -> None:
        """Keep what the folder holds, unless it is small or the cache cannot be written.

        Args:
            tree: the state of the folder, read before its content.
        """
        if len(tree.names) < INDEX_FROM:
            return
        about = {
            "examined": tree.examined,
            "parts": list(content.parts),
            "classes": content.classes,
            "is_labelled": content.is_labelled,
            "policy": asdict(content.policy),
            "fingerprint": content.fingerprint,
            "notes": content.notes,
            "facts": dict(content.facts),
            "skipped": content.skipped,
        }
        arrays: dict[str, Any] = {"tree_names": _join_names(tree.names), "tree_states": tree.states}
        for name, part in content.parts.items():
            arrays |= {f"names_{name}": _join_names(part.names), f"labels_{name}": part.labels}
        stream = io.BytesIO()
        np.savez(stream, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        with suppress(OSError):
            write_checked(self.path, stream.getvalue())


def _join_names(names: list[bytes]) -> np.ndarray:
    return np.frombuffer(_SPLIT.join(names), np.uint8)


def _split_names(joined: np.ndarray) -> list[bytes]:
    return joined.tobytes().split(_SPLIT)


def _policy_of(values: Mapping[str, Any]) -> PixelPolicy:
    ranges = {name: tuple(values[name]) for name in ("range", "float_range") if values[name] is not None}
    return PixelPolicy(**{**values, **ranges})
