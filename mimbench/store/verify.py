"""`mimbench verify`: compares everything in a results folder with its hashes and its schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mimbench.errors import InputError
from mimbench.files import file_sha256
from mimbench.store.artifacts import (
    SELF_CHECKED,
    OutsideError,
    damage_of,
    find_artifact,
    is_picture,
    results_folders,
)
from mimbench.store.failure import read_failure
from mimbench.store.features import is_whole, seal_of
from mimbench.store.reading import CHECKPOINTS, FAILURES, FOLDERS, RECORDS, conflict, read_body
from mimbench.store.record import Record, read_record
from mimbench.store.sealing import DAMAGE, fingerprint, read_sealed
from mimbench.store.stages import card_of, check_stage
from mimbench.text import visible

_LISTED = 10
"""Missing files that are listed by name."""


@dataclass
class Verification:
    """How many files were checked, and one line per problem."""

    records: int = 0
    checkpoints: int = 0
    others: int = 0
    """Failures, stages, features and states of unfinished trainings."""
    damage: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Artifacts that records name and that do not exist. This is no damage: records may be copied without them."""
    unfinished: list[str] = field(default_factory=list)
    """Files that a killed process left without their hash. They are made again when they are needed."""
    files: set[tuple[Path, str | None]] = field(default_factory=set)
    """Artifacts that were checked, with the hash in the record."""
    unhashed: int = 0
    """Number of artifacts without a hash in the record and without checksums of their own."""

    def lines(self) -> list[str]:
        """One line per problem, then one with the numbers of files."""
        state = f"{len(self.damage)} damaged" if self.damage else "all sound"
        if self.missing:
            state += f"; {len(self.missing)} file{'s' * (len(self.missing) > 1)} that records name missing"
        more = len(self.missing) - _LISTED
        checked = [_count(self.records, "record"), _count(self.checkpoints, "checkpoint")]
        checked += [_count(self.others, "other file")] if self.others else []
        lines = [
            *(f"damaged: {line}" for line in self.damage),
            *(f"missing: {line}" for line in self.missing[:_LISTED]),
            *([f"missing: and {more} more"] if more > 0 else []),
            *(f"unfinished: {line}" for line in self.unfinished),
            *([f"not checked: {self.unhashed} files, whose records note no hash"] if self.unhashed else []),
            f"{', '.join(checked)}: {state}",
        ]
        return [visible(line) for line in lines]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def verify(root: Path) -> Verification:
    """Check everything below `root`.

    - Records: seal, schema, file name, range of each metric, artifacts, and that no two of one id differ.
    - Checkpoints: seal of the card, hashes of the weights, and that records were made with these weights.
    - Failures, stages, features and states of unfinished trainings: their hashes.

    Raises:
        InputError: no such folder, or nothing in it to check.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; nothing to verify")
    result = Verification()
    weights: dict[str, str] = {}
    known: dict[str, tuple[Path, Record]] = {}
    for folder in _checkpoints(root):
        result.checkpoints += 1
        _check_checkpoint(folder, result, weights)
    for path in _records(root):
        result.records += 1
        _check_record(path, result, known)
    for path, record in known.values():
        sha256 = weights.get(record.checkpoint.fingerprint)
        if sha256 and sha256 != record.checkpoint.weights_sha256:
            name = record.checkpoint.fingerprint
            result.damage.append(f"record {path} was made with other weights than checkpoint {name} now has")
    for folder in _results_folders(root):
        _check_links(folder, result)
        _check_failures(folder, result)
        _check_stages(folder / "stages", result)
        _check_features(folder / "features", result)
        _check_work(folder / "work", result)
    if not result.records and not result.checkpoints and not result.others:
        raise InputError(f"there are no records and no checkpoints below {root}; nothing to verify")
    return result


def _check_record(path: Path, result: Verification, known: dict[str, tuple[Path, Record]]) -> None:
    try:
        record = read_record(path)
    except InputError as error:
        result.damage.append(_foreign(path) or str(error))
        return
    if path.stem != record.id:
        result.damage.append(f"record {path} is that of {record.id}: its file was renamed")
    if fingerprint(record.protocol) != record.protocol_fingerprint:
        result.damage.append(f"record {path}: its protocol does not have the fingerprint {record.protocol_fingerprint}")
    for name, value in record.metrics.items():
        if not value.low <= value.value <= value.high:
            result.damage.append(
                f"record {path}: {name} is {value.value} {value.unit}, outside {value.low} to {value.high}"
            )
    for name, file in record.artifacts.items():
        _check_artifact(path, name, file, record.artifacts_sha256.get(name), result)
    first_path, first = known.setdefault(record.id, (path, record))
    if first != record:
        result.damage.append(conflict(first_path, read_body(first_path), path, read_body(path)))


def _check_artifact(record: Path, name: str, relative: str, sha256: str | None, result: Verification) -> None:
    what = f"the {name} of record {record}"
    try:
        file = find_artifact(results_folders(record), relative)
    except OutsideError as error:
        result.damage.append(f"{error}: {what}")
        return
    if file is None:
        result.missing.append(f"{relative}, {what}")
    elif (file, sha256) not in result.files:  # several records share the picture of their pretraining
        result.files.add((file, sha256))
        if problem := damage_of(file, sha256):
            advice = "its numbers stand; the report leaves the file out" if is_picture(file) else "its numbers stand"
            result.damage.append(f"{relative}, {what}, {problem}; {advice}")
        elif sha256 is None and file.suffix.lower() not in SELF_CHECKED:
            result.unhashed += 1


def _foreign(path: Path) -> str:
    """What to say of JSON that never was a record; "" for all else."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    if isinstance(body, dict) and {"sha256", "schema", "id"} & body.keys():
        return ""
    return f"{path} is no mimbench record; move it out of the folder of records"


def _check_checkpoint(folder: Path, result: Verification, weights: dict[str, str]) -> None:
    from mimbench.store.store import read_checkpoint  # imports torch

    try:
        checkpoint = read_checkpoint(folder)
    except InputError as error:
        result.damage.append(str(error))
        return
    name = checkpoint.card.get("fingerprint")
    if name != folder.name:
        result.damage.append(f"checkpoint {folder} says that it is {name!r}: its folder was renamed")
    weights[str(name)] = checkpoint.weights_sha256


def _check_links(results: Path, result: Verification) -> None:
    for name in FOLDERS:
        if (results / name).is_symlink():
            result.damage.append(
                f"{results / name} is a link, and mimbench writes through none; replace it by a folder"
            )


def _check_failures(results: Path, result: Verification) -> None:
    for path in _sorted_files(results / FAILURES, ".json"):
        result.others += 1
        try:
            failure = read_failure(path)
            if failure.traceback:
                find_artifact([results], failure.traceback)
        except InputError as error:
            result.damage.append(str(error))
            continue
        except OutsideError as error:
            result.damage.append(f"{error}: the traceback of failure {path}; delete {path}")
        if path.stem != failure.id:
            result.damage.append(f"failure {path} is that of {failure.id}: its file was renamed")


def _check_stages(folder: Path, result: Verification) -> None:
    stems = {path.with_suffix("") for path in _sorted_files(folder, ".safetensors", ".json")}
    for stem in sorted(stems):
        result.others += 1
        weights = stem.with_suffix(".safetensors")
        if not card_of(weights).exists():
            result.unfinished.append(f"{weights} has no {card_of(weights).name}")
            continue
        try:
            check_stage(weights)
        except InputError as error:
            result.damage.append(str(error))


def _check_features(folder: Path, result: Verification) -> None:
    for path in _sorted_files(folder, ".npy"):
        result.others += 1
        if not seal_of(path).exists():
            result.unfinished.append(f"{path} has no {seal_of(path).name}")
        elif not is_whole(path):
            result.damage.append(f"features {path} do not match {seal_of(path).name}; the next run makes them again")
    for seal in _sorted_files(folder, ".seal"):
        if not seal.with_suffix(".npy").exists():
            result.unfinished.append(f"{seal} has no {seal.stem}.npy")
    for part in _sorted_files(folder, ".part"):
        result.unfinished.append(f"{part} holds the first features of a split; the next run adds the others")


def _check_work(folder: Path, result: Verification) -> None:
    """States of unfinished trainings: each has a sealed card that notes its hash."""
    for card in sorted(folder.rglob("step_*.json")):
        result.others += 1
        state = card.with_suffix(".pth")
        advice = f"delete {card} and {state.name}; the training then starts from an earlier state"
        try:
            if file_sha256(state) != read_sealed(card, "card", advice)["file_sha256"]:
                result.damage.append(f"{state} does not have the sha256 in {card.name}; {advice}")
        except InputError as error:
            result.damage.append(str(error))
        except DAMAGE as error:
            result.damage.append(f"{state} cannot be checked ({type(error).__name__}: {error}); {advice}")


def _records(root: Path) -> Iterator[Path]:
    for folder in _named(root, RECORDS):
        yield from _sorted_files(folder, ".json", recursive=True)


def _checkpoints(root: Path) -> Iterator[Path]:
    """Folders of checkpoints; one that is being written has a name with a dot in front."""
    for folder in _named(root, CHECKPOINTS):
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _results_folders(root: Path) -> list[Path]:
    """The folders that hold records or checkpoints; without any, `root`."""
    above = {folder.parent for name in (RECORDS, CHECKPOINTS) for folder in _named(root, name) if folder != root}
    return sorted(above or {root})


def _sorted_files(folder: Path, *suffixes: str, recursive: bool = False) -> list[Path]:
    """Files, without those that are being written."""
    if not folder.is_dir():
        return []
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(path for path in files if path.suffix in suffixes and not path.name.startswith("."))


def _named(root: Path, name: str) -> Iterator[Path]:
    """`root`, if it is called `name`, and every folder of that name below it."""
    for folder, below, _ in os.walk(root):
        if Path(folder).resolve().name == name:
            below.clear()
            yield Path(folder)
