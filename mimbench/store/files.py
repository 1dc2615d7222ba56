"""Hashes and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.files import write_atomic

DAMAGE = (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError)
"""What reading a damaged file of JSON, and taking from it what should be there, may raise."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_text(data: Any) -> str:
    """The one JSON text of plain data, so that equal data hash alike. Numbers must be finite."""
    return _CANONICAL.encode(data)


def canonical(data: Any) -> bytes:
    """As `canonical_text`, in UTF-8."""
    return canonical_text(data).encode()


def fingerprint(data: Any, length: int = 16) -> str:
    """Hex digest of plain JSON data."""
    return hashlib.sha256(canonical(data)).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON for people, atomically."""
    write_atomic(path, (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
