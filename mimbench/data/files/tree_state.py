"""The state of all files and folders below some folders: it is equal only if nothing in them was changed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimbench.data.files.cache import MIN_AGE, READERS
from mimbench.data.files.listing import visible_names

_CHUNK = 4096
"""Names that a thread looks up before it takes the next ones."""
_POSITIVE = 2**63 - 1
_MODIFIED, _CHANGED = 1, 2
_GONE = (0, 0, 0, 0, 0)


@dataclass(frozen=True)
class TreeState:
    """What a file system holds of files and folders apart from their content.

    A folder's times change when an entry is added, removed, renamed or replaced. A file's size, times or inode change
    when it is written; to keep all of them takes a tool that sets the clock.
    """

    examined: int
    """When the tree was looked at, ns since the epoch, read before the names and states."""
    names: list[bytes]
    """Paths relative to a root, of folders and of what is visible in them; b"" is the root."""
    states: np.ndarray
    """int64 [names, 5]: size, modified, changed, inode, device, as in FileState; zeros for a broken link."""

    @classmethod
    def read(cls, root: Path, folders: Sequence[Path]) -> TreeState:
        """The state of `root`, without what lies in it, and of the visible files and folders below `folders`.

        Raises:
            InputError: a folder cannot be listed.
        """
        examined = time.time_ns()
        names = [b"", *_below(root, folders)]
        return cls(examined, names, _states_of(root, names))

    def is_current(self, root: Path) -> bool:
        """Whether nothing has changed since. False as well if something had changed just before it was looked at.

        A file system notes times so coarsely that a change right after that would not show.
        """
        modified, changed = self.states[:, _MODIFIED], self.states[:, _CHANGED]
        # A date in the future says nothing about when the file was written.
        latest = np.where(modified <= self.examined, np.maximum(modified, changed), changed)
        if (self.examined - latest <= MIN_AGE).any():
            return False
        return np.array_equal(_states_of(root, self.names), self.states)


def _below(root: Path, folders: Sequence[Path]) -> Iterator[bytes]:
    for folder in folders:
        prefix = "" if folder == root else folder.relative_to(root).as_posix()
        if prefix:
            yield os.fsencode(prefix)
        yield from map(os.fsencode, visible_names(folder, prefix + "/" if prefix else ""))


def _states_of(root: Path, names: list[bytes]) -> np.ndarray:
    prefix = os.fsencode(root) + b"/"

    def look_up(start: int) -> np.ndarray:
        states = [_state(prefix + name) for name in names[start : start + _CHUNK]]
        return np.array(states, dtype=np.int64).reshape(-1, 5)

    with ThreadPoolExecutor(READERS) as pool:  # for file systems of which each answer takes long
        return np.concatenate(list(pool.map(look_up, range(0, len(names), _CHUNK))))


def _state(path: bytes) -> tuple[int, int, int, int, int]:
    try:
        stat = os.stat(path)
    except OSError:
        return _GONE
    return (
        *(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),
        *(stat.st_ino & _POSITIVE, stat.st_dev & _POSITIVE),
    )
