"""The cache folder, and the files in it that can be computed again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.files import FileState, write_atomic
from mimbench.leases import hold_lease

MIN_AGE = 2_000_000_000
"""ns. A file system may note times as coarsely as every 2 s (FAT)."""
READERS = min(32, 2 * (os.cpu_count() or 1))
"""Threads that read files at the same time."""


def default_cache() -> Path:
    """$MIMBENCH_CACHE, or mimbench under $XDG_CACHE_HOME, or ~/.cache/mimbench."""
    if chosen := os.environ.get("MIMBENCH_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mimbench"


def ensure_writable(cache: Path) -> Path:
    """Make the folder `cache` if it does not exist, and return it.

    Raises:
        InputError: it cannot be made or written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(_unwritable(cache, error.strerror or str(error))) from error
    if not os.access(cache, os.W_OK):
        raise InputError(_unwritable(cache, "permission denied"))
    return cache


def write_derived(path: Path, data: Any) -> None:
    """Write plain data as JSON beneath its own checksum."""
    write_checked(path, json.dumps(data).encode())


def read_derived(path: Path) -> Any:
    """What `write_derived` wrote; None if it is absent, damaged or altered, since it can be made again."""
    content = read_checked(path)
    try:
        return None if content is None else json.loads(content)
    except ValueError:
        return None


def write_checked(path: Path, content: bytes) -> None:
    """Write bytes beneath their own checksum."""
    write_atomic(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_checked(path: Path) -> bytes | None:
    """What `write_checked` wrote; None if it is absent, damaged or altered."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest().encode() == checksum else None


def write_if_changed(path: Path, content: bytes) -> Path:
    """`path` with this content: written if it is absent, damaged or altered."""
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
    return path


@contextmanager
def folder_entries(cache: Path, kind: str, folder: Path) -> Iterator[tuple[Path, dict[str, list]]]:
    """The derived file about the files in `folder`, and its entries by file name. Its lease is held meanwhile.

    Args:
        kind: what the entries are and their version; part of the derived file's name.
    """
    identity = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    path = ensure_writable(cache) / f"{kind}-{identity}.json"
    with hold_lease(path, f"examining {folder}"):
        yield path, read_derived(path) or {}


def is_current(recorded: FileState, examined: int, state: FileState | None) -> bool:
    """Whether what was found in a file still holds.

    A file that was examined right after its last change may have been changed again without a new time in its state.

    Args:
        recorded: the file's state when it was examined.
        examined: when that was, ns since the epoch, read before the state.
        state: the file's state now; None if it is gone.
    """
    if state != recorded:
        return False
    # A date in the future says nothing about when the file was written.
    latest = max(state.changed, state.modified if state.modified <= examined else 0)
    return examined - latest > MIN_AGE


def _unwritable(cache: Path, reason: str) -> str:
    return f"the cache {cache} cannot be written ({reason}); point MIMBENCH_CACHE at a folder that can"
