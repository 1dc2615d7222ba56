"""Fingerprints of plain data, and seals: JSON files that hold the hash of their own content.

The seal of records, failures and cards of training states has the key "sha256". The seal of the cards of checkpoints
and stages has the key "seal", since their "sha256" is that of the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.advice import advice_on
from mimbench.errors import InputError
from mimbench.files import is_unreadable, write_atomic

SEAL = "seal"
"""Key of the hash of the rest of a card. Older cards have none."""
DAMAGE = (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError)
"""Exceptions from reading a damaged JSON file, or from using its content."""

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_text(data: Any) -> str:
    """The canonical JSON text of plain data: equal data give equal text. Numbers must be finite."""
    return _CANONICAL.encode(data)


def fingerprint(data: Any, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of plain data in canonical JSON."""
    return hashlib.sha256(canonical_text(data).encode()).hexdigest()[:length]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as indented JSON, atomically."""
    write_atomic(path, (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_sealed(path: Path, body: Mapping[str, Any]) -> None:
    """As `write_json`, with the seal under "sha256"."""
    write_json(path, {**body, "sha256": fingerprint(body, 64)})


def read_sealed(path: Path, what: str, advice: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote, check the seal, and return the content without it.

    Args:
        what: names the kind of file in messages, such as "record".
        advice: what to do if the file is damaged.

    Raises:
        InputError: the file is unreadable or altered.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        seal, digest = body.pop("sha256"), fingerprint(body, 64)
    except DAMAGE as error:
        raise InputError(f"{what} {path} {damage_in_words(error, advice)}") from error
    if seal != digest:
        raise InputError(f"{what} {path} does not match its own sha256: it was altered or damaged; {advice}")
    return body


def seal_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card with its seal, in place of an earlier one."""
    body = _without_seal(card)
    return {**body, SEAL: fingerprint(body, 64)}


def is_sealed(card: Mapping[str, Any]) -> bool:
    """Whether a card is as it was written. An older card without a seal counts as unaltered."""
    return SEAL not in card or card[SEAL] == fingerprint(_without_seal(card), 64)


def _without_seal(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key != SEAL}


def damage_in_words(error: Exception, advice: str) -> str:
    """What is wrong with a file whose reading raised `error`, and what to do; `advice` is for a damaged file."""
    if is_unreadable(error):
        return f"cannot be read ({getattr(error, 'strerror', error)}); {advice_on(error) or 'try again'}"
    return f"is corrupt ({type(error).__name__}: {error}); {advice}"
