"""The cache folder, and the files in it that can be computed again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.files import FileState, write_atomic

MIN_AGE = 2_000_000_000
"""ns. A file system may note times as coarsely as every 2 s (FAT)."""


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
    content = json.dumps(data).encode()
    write_atomic(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_derived(path: Path) -> Any:
    """What `write_derived` wrote; None if it is absent, damaged or altered, since it can be made again."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
        return json.loads(content) if hashlib.sha256(content).hexdigest().encode() == checksum else None
    except (OSError, ValueError):
        return None


def write_if_changed(path: Path, content: bytes) -> Path:
    """`path` with this content: written if it is absent, damaged or altered."""
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
    return path


def is_proven(state: FileState, examined: int) -> bool:
    """Whether what was found in a file still holds while its state stays the same.

    A file that was examined right after its last change may have been changed again without a new time in its state.

    Args:
        state: of the file, read when it was examined.
        examined: when that was, ns since the epoch, read before the state.
    """
    # A date in the future says nothing about when the file was written.
    latest = max(state.changed, state.modified if state.modified <= examined else 0)
    return examined - latest > MIN_AGE


def _unwritable(cache: Path, reason: str) -> str:
    return f"the cache {cache} cannot be written ({reason}); point MIMBENCH_CACHE at a folder that can"
