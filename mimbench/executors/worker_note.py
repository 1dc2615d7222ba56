"""What became of a worker: a small file that the worker writes itself, and others read from any machine."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mimbench.store.sealing import DAMAGE, write_json

WORKERS = "workers"
"""The folder of the notes, in that of a submission."""


@dataclass(frozen=True)
class WorkerNote:
    index: int
    job: str
    """Its name for the executor."""
    host: str
    pid: int
    since: str
    """When it started, the last time: ISO 8601, UTC."""
    starts: int
    """How often it has started: more than once if its job was requeued."""
    state: Literal["running", "finished", "requeued", "stopped", "refused"]
    """finished: nothing was left to run. stopped: by a signal. refused: by an error that is no failure of a cell."""
    message: str = ""
    """Why it stopped, in one line."""
    exit_code: int = 0


def start_note(folder: Path, index: int, job: str, pid: int) -> WorkerNote:
    """The note of a worker that starts. Nothing is written.

    Args:
        folder: of the submission.
    """
    before = read_note(_path(folder, index))
    starts = before.starts + 1 if before else 1
    return WorkerNote(index, job, platform.node(), pid, now(), starts, "running")


def write_note(folder: Path, note: WorkerNote) -> None:
    write_json(_path(folder, note.index), asdict(note))


def read_notes(folder: Path) -> dict[str, WorkerNote]:
    """The notes of a submission's workers, by job. Those that cannot be read are left out."""
    notes = [note for path in sorted((folder / WORKERS).glob("*.json")) if (note := read_note(path))]
    return {note.job: note for note in notes}


def read_note(path: Path) -> WorkerNote | None:
    with suppress(*DAMAGE):
        return WorkerNote(**json.loads(path.read_text(encoding="utf-8")))
    return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _path(folder: Path, index: int) -> Path:
    return folder / WORKERS / f"{index}.json"
