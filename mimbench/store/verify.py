"""Every record and checkpoint below a folder, held against its hashes and its schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mimbench.errors import InputError
from mimbench.store.files import fingerprint
from mimbench.store.reading import conflict, read_body
from mimbench.store.record import Record, read_record
from mimbench.text import visible

_LISTED = 10
"""Missing files that are told by name."""


@dataclass
class Found:
    """What was looked at, and what is wrong with it: one line each."""

    records: int = 0
    checkpoints: int = 0
    damage: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Pictures and other files that records name and that are not there. A record is sound without: it has its numbers,
    and records may be copied without `artifacts`."""

    def lines(self) -> list[str]:
        """All of it in words, one line each, the sum last."""
        state = f"{len(self.damage)} damaged" if self.damage else "all sound"
        if self.missing:
            state += f"; {len(self.missing)} file{'s' * (len(self.missing) > 1)} that records name missing"
        more = len(self.missing) - _LISTED
        return [
            *(visible(f"damaged: {line}") for line in self.damage),
            *(visible(f"missing: {line}") for line in self.missing[:_LISTED]),
            *([f"missing: and {more} more"] if more > 0 else []),
            f"{self.records} records, {self.checkpoints} checkpoints: {state}",
        ]


def verify(root: Path) -> Found:
    """Check all below `root`: seals, schema, names, ranges of metrics, weights; that records go together, and that the
    files that they name are there.

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
        found.damage.append(_foreign(path) or str(error))
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
    folders = [parent.parent for parent in path.parents if parent.name == "records"]
    for name, file in record.artifacts.items():
        if not any((folder / file).is_file() for folder in folders):
            found.missing.append(f"{file}, the {name} of record {path}")
    first_path, first = known.setdefault(record.id, (path, record))
    if first != record:
        found.damage.append(conflict(first_path, read_body(first_path), path, read_body(path)))


def _foreign(path: Path) -> str:
    """What to say of JSON that never was a record; "" for all else."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    if isinstance(body, dict) and {"sha256", "schema", "id"} & body.keys():
        return ""
    return f"{path} is no mimbench record; move it out of the folder of records"


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
