"""What runs in a results folder now: who holds which lease, and how far each training is.

DIR/work/<key>/.../progress.json is the note of a training that runs, or was interrupted. It goes with the work folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mimbench.files import write_atomic
from mimbench.lease_states import LeaseState, list_leases
from mimbench.store.sealing import DAMAGE, fingerprint
from mimbench.text import format_duration

PROGRESS = "progress.json"


@dataclass(frozen=True)
class TrainingProgress:
    """How far one training is."""

    label: str
    unit: str
    """Either "epoch" or "step"."""
    done: float
    """Units done, with the fraction of the current one."""
    total: int
    loss: Sequence[tuple[float, float]]
    """(units done, mean loss since the point before)."""
    logs: Mapping[str, float]
    """What the last step logged."""
    images_per_second: float
    seconds_left: float
    """At the speed so far."""

    def describe(self) -> str:
        """Such as "epoch 3/12, loss 0.1234, 42 s left"."""
        number = min(int(self.done) + 1, self.total)
        loss = f", loss {self.loss[-1][1]:.4f}" if self.loss else ""
        left = f", {format_duration(self.seconds_left)} left" if self.images_per_second else ""
        return f"{self.unit} {number}/{self.total}{loss}{left}"


@dataclass(frozen=True)
class Running:
    """A lease that is held, and the trainings under it."""

    lease: LeaseState
    trainings: Sequence[TrainingProgress]
    """[] while data or models load, and for what does not train."""


def work_keys(training: str) -> tuple[str, str]:
    """Keys of the two work folders that a training may have: the first, and that for a restart from scratch."""
    return training, fingerprint([training, "once more"])


def write_progress(path: Path, progress: TrainingProgress) -> None:
    """Write a note. A note that cannot be written is left out: it must not stop a training.

    Raises:
        LeaseLost: another process has taken over this training.
    """
    with suppress(OSError, ValueError):
        write_atomic(path, json.dumps(asdict(progress), allow_nan=False).encode())


def read_progress(path: Path) -> TrainingProgress | None:
    """None if there is no note, or it cannot be read."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return TrainingProgress(
            label=str(body["label"]),
            unit=str(body["unit"]),
            done=float(body["done"]),
            total=int(body["total"]),
            loss=[(float(at), float(loss)) for at, loss in body["loss"]],
            logs={str(name): float(value) for name, value in body["logs"].items()},
            images_per_second=float(body["images_per_second"]),
            seconds_left=float(body["seconds_left"]),
        )
    except DAMAGE:
        return None


def trainings_of(results: Path, lease: LeaseState) -> list[TrainingProgress]:
    """The trainings that the holder of a lease has begun, the oldest first."""
    notes = [path for key in work_keys(lease.key) for path in _notes_below(results / "work" / key)]
    read = [read_progress(path) for path in sorted(notes, key=_time)]
    return [progress for progress in read if progress]


def _notes_below(folder: Path) -> list[Path]:
    try:
        return list(folder.rglob(PROGRESS))
    except OSError:  # the training ended, and its folder was removed meanwhile
        return []


def list_running(root: Path) -> list[Running]:
    """What runs in a results folder, or in each of a folder of results folders. It only reads."""
    return [
        Running(lease, trainings_of(results, lease))
        for results in _results_folders(root)
        for lease in list_leases(results / "work")
        if not lease.is_over
    ]


def _results_folders(root: Path) -> Iterator[Path]:
    if (root / "work").is_dir():
        yield root
    else:
        yield from sorted(work.parent for work in root.glob("*/work"))


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just been removed
        return 0.0


def as_json(running: Sequence[Running]) -> list[dict[str, Any]]:
    """Plain JSON data: of each lease what is done, where and since when, and its trainings."""
    return [
        {
            **{name: getattr(one.lease, name) for name in ("key", "what", "host", "pid", "job", "since")},
            "trainings": [asdict(training) for training in one.trainings],
        }
        for one in running
    ]
