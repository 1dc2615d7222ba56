"""Reads many records as plain data, with their seals checked and without pydantic. Frames and tables use it."""

from __future__ import annotations

import hashlib
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.store.sealing import DAMAGE, canonical_text, fingerprint, read_sealed

SCHEMA = 1
RECORDS, FAILURES, CHECKPOINTS = "records", "failures", "checkpoints"
RESULTS = (RECORDS, CHECKPOINTS, FAILURES, "stages", "features")
"""Folders of a results folder in which each file is the result of one process, for all."""
TRACKS = "tracks"
FOLDERS = (*RESULTS, "artifacts", "work", TRACKS)
"""All folders of a results folder that processes write while they run cells."""


def record_files(root: Path) -> list[Path]:
    """The files of all records in a results folder, a folder of records, or a folder of results folders.

    Records copied from another machine may lie in folders of their own below `records`. Sorted by name.

    Raises:
        InputError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"results folder {root} {problem}; run `mimbench run` first or pass --results DIR")
    return _files(root, RECORDS)


def failure_files(root: Path) -> list[Path]:
    """The files of all failures that are noted beside the records below `root`, or where there are no records yet.

    `root` is as for `record_files`; those of other machines may lie in folders of their own below `failures`. Sorted
    by name.
    """
    return _files(Path(root), FAILURES)


def _files(root: Path, name: str) -> list[Path]:
    """All below the folders `name`; a folder of records may have another name."""
    if (root / RECORDS).is_dir():
        folders = [root / name]
    elif any(root.glob("*.json")):
        above = [folder.parent for folder in (root, *root.parents) if folder.name == RECORDS]
        folders = [root] if name == RECORDS else [folder / name for folder in above or [root]]
    else:
        folders = [folder for folder in root.rglob(name) if folder.is_dir()]
    files = {path for folder in folders for path in folder.rglob("*.json") if not path.name.startswith(".")}
    return sorted(files, key=lambda path: (path.name, path))


def read_body(path: Path) -> dict[str, Any]:
    """A record's content as it stands on disk, without the seal, which was checked.

    Raises:
        InputError: it is unreadable, altered, or of a schema that this version does not know.
    """
    body = read_sealed(path, "record", "restore or delete the file")
    if body.get("schema") != SCHEMA:
        raise InputError(f"record {path} has schema {body.get('schema')}; this mimbench reads schema {SCHEMA}")
    return body


class Reader:
    """Reads many records. Parts that records share (recipe, protocol) are parsed and brought into canonical form once.

    10,000 records take 2.0 to 2.5 s of processor time, with `read_body` for each 5.3 to 5.4 s (2 runs each on the
    records of benchmarks/records.py). Equal parts are one shared object, so callers must not change them.
    """

    def __init__(self) -> None:
        self._parts: dict[str, tuple[str, Any, str]] = {}

    def read(self, path: Path) -> tuple[dict[str, Any], str]:
        """As `read_body`, and the seal."""
        try:
            parts = self._split(path.read_bytes().decode())
        except DAMAGE:
            parts = []
        body = {key: value for key, value, _ in parts}
        seal = body.pop("sha256", None)
        whole = "{" + ",".join([text for key, _, text in parts if key != "sha256"]) + "}"
        digest = hashlib.sha256(whole.encode()).hexdigest()
        # Equal lengths: no key occurs twice. Any doubt is left to the slower read_body, which reports what is wrong.
        if len(body) + 1 == len(parts) and seal == digest and body.get("schema") == SCHEMA:
            return body, seal
        body = read_body(path)
        return body, fingerprint(body, 64)

    def _split(self, text: str) -> list[tuple[str, Any, str]]:
        """(key, value, canonical JSON of both) of each top-level entry of a file as `write_json` lays it out, by key.

        JSON strings hold no line breaks, so a line that begins with two blanks and a quote begins an entry, or
        ValueError is raised.
        """
        start, *lines = text.removesuffix("\n}\n").split('\n  "')
        if start != "{" or not lines:
            raise ValueError("laid out in another way")
        lines[-1] += ","
        known = self._parts
        return sorted([known.get(line) or self._part(line) for line in lines], key=itemgetter(0))

    def _part(self, line: str) -> tuple[str, Any, str]:
        if not line.endswith(","):
            raise ValueError("laid out in another way")
        entry = json.loads(f'{{"{line[:-1]}}}')
        ((key, value),) = entry.items()
        part = self._parts[line] = key, value, canonical_text(entry)[1:-1]
        return part


def read_all(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every record below `root` with its file, each once: one copied twice counts once. Sorted by file name.

    Raises:
        InputError: no such folder, no record in it, a damaged one, or two of one id and different content.
    """
    reader = Reader()
    records: dict[str, tuple[Path, dict[str, Any], str]] = {}
    for path in record_files(root):
        body, seal = reader.read(path)
        first_path, first_body, first_seal = records.setdefault(str(body.get("id")), (path, body, seal))
        if first_seal != seal:
            raise InputError(conflict(first_path, first_body, path, body))
    if not records:
        raise InputError(_why_none(root))
    return [(path, body) for path, body, _ in records.values()]


def _why_none(root: Path) -> str:
    failed = failure_files(root)
    if not failed:
        return f"there are no records in {root}; run `mimbench run` first or pass --results DIR"
    cells, folders = len({path.name for path in failed}), sorted({str(path.parent) for path in failed})
    return (
        f"there are no records in {root}: all that was run failed, {cells} cell{'s' * (cells > 1)}; "
        f"the reasons are in {', '.join(folders)}"
    )


def conflict(path: Path, body: dict[str, Any], other_path: Path, other: dict[str, Any]) -> str:
    """How two records of one id differ, and what to do."""
    keys = [key for key in {**body, **other} if body.get(key) != other.get(key)]
    hosts = [str(record.get("provenance", {}).get("host")) for record in (body, other)]
    return (
        f"record {body.get('id')} is in {path} (host {hosts[0]}) and in {other_path} (host {hosts[1]}) with different "
        f"content ({', '.join(keys)}): both measured the same cell; keep one of the two files"
    )
