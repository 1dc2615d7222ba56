"""`mimbench status`: what of a run is done, running, failed and left. It only reads the results folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mimbench.errors import InputError
from mimbench.executors.submission import PlannedCell, Submission, describe_cell, read_submissions
from mimbench.executors.worker_note import WorkerNote, read_notes
from mimbench.harness.run import RunOptions, plan_run
from mimbench.lease_states import LeaseState, list_leases
from mimbench.store.failure import failure_path, read_failure, read_failures
from mimbench.store.progress import Running, trainings_of
from mimbench.store.reading import failure_files, record_files
from mimbench.store.store import Store
from mimbench.text import list_first

State = Literal["recorded", "failed", "running", "left"]


@dataclass(frozen=True)
class CellStatus:
    id: str
    label: str
    state: State
    """running: a process works on the cell or on its pretraining. failed: at the last attempt."""
    reason: str = ""
    """Of a failure."""


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that has stopped although cells may be left."""

    job: str
    note: WorkerNote
    folder: str
    """Of the submission, with the logs."""


@dataclass(frozen=True)
class RunStatus:
    """What a results folder says about a run."""

    results: Path
    submissions: Sequence[Submission]
    """Those that the cells come from, the newest first; [] for a plan."""
    cells: Sequence[CellStatus]
    running: Sequence[Running]
    """What processes do now, on whatever machine, and how far their trainings are."""
    silent: Sequence[LeaseState]
    """What processes have left unfinished that give no sign of life. The next worker takes over."""
    stopped: Sequence[WorkerStatus]
    is_planned: bool
    """False: nothing says which cells belong to the run, so `cells` are those that were tried so far."""

    def count(self, state: State) -> int:
        return sum(cell.state == state for cell in self.cells)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        states: tuple[State, ...] = ("recorded", "failed", "running", "left")
        return {
            "results": str(self.results),
            "counts": {state: self.count(state) for state in states},
            "cells": [asdict(cell) for cell in self.cells],
            "running": [
                {**asdict(one.lease), "trainings": [asdict(training) for training in one.trainings]}
                for one in self.running
            ],
            "silent": [asdict(lease) for lease in self.silent],
            "stopped_workers": [{"folder": one.folder, **asdict(one.note)} for one in self.stopped],
            "submissions": [
                {
                    "folder": str(one.folder),
                    "executor": one.executor,
                    "config": dict(one.config),
                    "jobs": list(one.jobs),
                    "submitted": one.submitted,
                    "host": one.host,
                    "arguments": list(one.arguments),
                }
                for one in self.submissions
            ],
        }


def status_of_plan(options: RunOptions) -> RunStatus:
    """The state of the cells that a run of these options has.

    Raises:
        InputError: an option or setting that cannot be used.
    """
    with plan_run(options) as run:
        cells = [PlannedCell(**describe_cell(cell)) for cell in run.cells]
        return _status(run.results, cells, [])


def status_of_folder(results: Path) -> RunStatus:
    """The state of all submitted runs of a results folder; if there is none, of all cells that were tried.

    Raises:
        InputError: there is no such folder.
    """
    record_files(results)  # raises InputError
    submissions = _latest(read_submissions(results))
    cells = {cell.id: cell for submission in reversed(submissions) for cell in submission.planned()}
    return _status(results, list(cells.values()), submissions)


def _latest(submissions: Sequence[Submission]) -> list[Submission]:
    """The newest submission of each request."""
    return list({submission.key: submission for submission in reversed(submissions)}.values())[::-1]


def _status(results: Path, planned: Sequence[PlannedCell], submissions: Sequence[Submission]) -> RunStatus:
    leases = list_leases(results / "work")
    held = {lease.key for lease in leases if not lease.is_over}
    store = Store(results, write=False)
    cells = [_cell(store, cell, held) for cell in planned] if planned else list(_tried(results))
    stopped = [
        WorkerStatus(job, note, str(submission.folder))
        for submission in submissions
        for job, note in read_notes(submission.folder).items()
        if note.state in ("stopped", "refused")
    ]
    if all(cell.state == "recorded" for cell in cells):
        stopped = []
    running = [Running(lease, trainings_of(results, lease)) for lease in leases if not lease.is_over]
    silent = [lease for lease in leases if lease.is_over]
    return RunStatus(results, submissions, cells, running, silent, stopped, bool(planned))


def _cell(store: Store, cell: PlannedCell, held: set[str]) -> CellStatus:
    if store.record_path(cell.id).exists():
        return CellStatus(cell.id, cell.label, "recorded")
    if cell.id in held or (cell.training in held and not store.has_checkpoint(cell.checkpoint)):
        return CellStatus(cell.id, cell.label, "running")
    path = failure_path(store.root, cell.id)
    if not path.exists():
        return CellStatus(cell.id, cell.label, "left")
    try:
        return CellStatus(cell.id, cell.label, "failed", read_failure(path).reason)
    except InputError as error:
        return CellStatus(cell.id, cell.label, "failed", str(error))


def _tried(results: Path) -> Iterator[CellStatus]:
    """The cells that have a record, or have failed."""
    recorded = {path.stem for path in record_files(results)}
    for name in sorted(recorded):
        yield CellStatus(name, name, "recorded")
    failures, damaged = read_failures(failure_files(results), recorded)
    for failure in failures:
        yield CellStatus(failure.id, failure.label, "failed", failure.reason)
    for name, problem in damaged.items():
        yield CellStatus(name, name, "failed", problem)


def describe_status(status: RunStatus) -> str:
    return "\n".join(_lines(status)) + "\n"


def _lines(status: RunStatus) -> Iterator[str]:
    for one in status.submissions:
        count = f"{len(one.jobs)} worker{'s' * (len(one.jobs) != 1)}"
        yield f"submitted  {one.submitted} from {one.host}: {count} of {one.executor} ({list_first(one.jobs)})"
        yield f"           mimbench {' '.join(one.arguments)}"
    unplanned = "" if status.is_planned else "; no run was submitted to workers here, so which are left is not known"
    left = f", {status.count('left')} left" if status.is_planned else ""
    running = f"{status.count('running')} running, " if status.is_planned else ""
    yield (
        f"cells      {len(status.cells)}: {status.count('recorded')} recorded, {running}"
        f"{status.count('failed')} failed{left}{unplanned}"
    )
    for one_running in status.running:
        lease = one_running.lease
        yield f"running    {lease.what or lease.key} ({_holder(lease)}, since {lease.since})"
        for training in one_running.trainings:
            yield f"           {training.label}: {training.describe()}"
    for lease in status.silent:
        yield f"ended      {lease.what or lease.key} ({_holder(lease)}) without a word; the next worker takes over"
    by_reason: dict[str, list[str]] = {}
    for cell in status.cells:
        if cell.state == "failed":
            by_reason.setdefault(cell.reason, []).append(cell.label)
    for reason, labels in by_reason.items():
        yield f"failed     {list_first(labels)}: {reason}"
    for worker in status.stopped:
        yield f"{worker.note.state:<10} worker {worker.job} on {worker.note.host}: {worker.note.message}"


def _holder(lease: LeaseState) -> str:
    job = f", job {lease.job}" if lease.job else ""
    return f"{lease.host or 'unknown machine'}{job}, process {lease.pid}"
