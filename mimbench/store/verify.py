"""Every record and checkpoint below a folder, held against its hashes and its schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mimbench.errors import InputError
from mimbench.store.files import fingerprint
from mimbench.store.reading import conflict, read_body
from mimbench.store.record import Record, read_record


@dataclass
class Found:
    """What was looked at, and what is wrong with it: one line each."""

    records: int = 0
    checkpoints: int = 0
    damage: list[str] = field(default_factory=list)


def verify(root: Path) -> Found:
    """Check all below `root`: seals, schema, names, ranges of metrics, weights; and that records go together.

    Raises:
        InputError: no such folder, or nothing in it to check.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; nothing to verify")
    found = Found()
    weights: dict[str, str] = {}
    known: dict[str, tuple[Path, Record]] = {}
    for folder in _checkpoints(root):
        found.checkpoints += 1
        _check_checkpoint(folder, found, weights)
    for path in _records(root):
        found.records += 1
        _check_record(path, found, known)
    for path, record in known.values():
        wanted, sha256 = record.checkpoint.weights_sha256, weights.get(record.checkpoint.fingerprint)
        if sha256 and sha256 != wanted:
            name = record.checkpoint.fingerprint
            found.damage.append(f"record {path} was made with other weights than checkpoint {name} now has")
    if not found.records and not found.checkpoints:
        raise InputError(f"there are no records and no checkpoints below {root}; nothing to verify")
    return found


def _check_record(path: Path, found: Found, known: dict[str, tuple[Path, Record]]) -> None:
    try:
        record = read_record(path)
    except InputError as error:
        found.damage.append(str(error))
        return
    if path.stem != record.id:
        found.damage.append(f"record {path} is that of {record.id}: its file was renamed")
    if fingerprint(record.protocol) != record.protocol_fingerprint:
        found.damage.append(f"record {path}: its protocol does not have the fingerprint {record.protocol_fingerprint}")
    for name, value in record.metrics.items():
        if not value.low <= value.value <= value.high:
            found.damage.append(
                f"record {path}: {name} is {value.value} {value.unit}, outside {value.low} to {value.high}"
            )
    first_path, first = known.setdefault(record.id, (path, record))
    if first != record:
        found.damage.append(conflict(first_path, read_body(first_path), path, read_body(path)))


def _check_checkpoint(folder: Path, found: Found, weights: dict[str, str]) -> None:
    from mimbench.store.store import read_checkpoint  # imports torch

    try:
        checkpoint = read_checkpoint(folder)
    except InputError as error:
        found.damage.append(str(error))
        return
    name = checkpoint.card.get("fingerprint")
    if name != folder.name:
        found.damage.append(f"checkpoint {folder} says that it is {name!r}: its folder was renamed")
    weights[str(name)] = checkpoint.weights_sha256


def _records(root: Path) -> Iterator[Path]:
    for folder in _named(root, "records"):
        yield from sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def _checkpoints(root: Path) -> Iterator[Path]:
    """Folders of checkpoints; one that is being written has a name with a dot in front."""
    for folder in _named(root, "checkpoints"):
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _named(root: Path, name: str) -> Iterator[Path]:
    """`root`, if it is called `name`, and every folder of that name below it."""
    for folder, below, _ in os.walk(root):
        if Path(folder).resolve().name == name:
            below.clear()
            yield Path(folder)
