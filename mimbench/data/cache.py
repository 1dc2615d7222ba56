"""Where derived files are kept."""

from __future__ import annotations

import os
from pathlib import Path

from mimbench.errors import InputError


def default_cache() -> Path:
    """$MIMBENCH_CACHE, or mimbench under $XDG_CACHE_HOME, or ~/.cache/mimbench."""
    if chosen := os.environ.get("MIMBENCH_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mimbench"


def writable(cache: Path) -> Path:
    """`cache`, made where it is absent.

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


def _unwritable(cache: Path, reason: str) -> str:
    return f"the cache {cache} cannot be written ({reason}); point MIMBENCH_CACHE at a folder that can"
