"""Follows the workers of a submission: an overview of the cells, and a line for each worker that ends too early."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mimbench.contract.executor import Executor
from mimbench.engine.progress import print_line
from mimbench.errors import InputError, RunError
from mimbench.executors.submission import PlannedCell, Submission
from mimbench.executors.worker_note import WorkerNote, read_notes
from mimbench.harness.planning.cells import Cell
from mimbench.harness.running.overview import Overview
from mimbench.lease_states import list_leases
from mimbench.store.failure import failure_path, read_failure
from mimbench.store.record import Record
from mimbench.store.store import Store
from mimbench.text import list_first

POLL_SECONDS = 1.0
"""Between two looks at the results folder."""


@dataclass(frozen=True)
class Followed:
    """What workers did."""

    results: Path
    records: Sequence[Record]
    """In the order of the plan."""
    failures: Sequence[tuple[str, str]]
    """Label and reason of each cell that failed."""
    before: int
    """How many of the records existed before the workers were followed."""
    left: Sequence[str]
    """Labels of the cells that no worker has run, since all have ended."""
    why_left: str
    """Why the workers have ended."""
    exit_code: int
    """0: all cells have a record. 1: some have none. 2: workers have refused their input."""
    outdated: Sequence[str] = ()
    """None: workers replace no weights."""


class Follower:
    """Looks at the results folder and at the jobs until all cells are run or all workers have ended."""

    def __init__(
        self,
        results: Path,
        submission: Submission,
        executor: Executor,
        cells: Sequence[Cell],
        console: Console,
        device: str,
    ) -> None:
        """cells: as this process has planned them; device: its name, for estimates of the time left."""
        self.store, self.submission, self.executor, self.console = Store(results), submission, executor, console
        self.workers = submission.workers()
        self.overview = Overview(console, device, cells)
        self.cells = list(cells)
        self._planned = list(submission.planned())
        # Results by position in the plan: the workers' ids of the cells may be others than those of this process.
        self._records: dict[int, Record] = {}
        self._failures: dict[int, str] = {}
        self._jobs: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._last_look = float("-inf")
        self._is_answering = True
        self._is_first_look = True

    def run(self) -> Followed:
        self._look_at_results()
        before = len(self._records)
        with self.overview.displayed():
            while len(self._records) + len(self._failures) < len(self.cells) and self._are_working():
                time.sleep(POLL_SECONDS)
                self._look_at_results()
        self.store.look_again()
        self._look_at_results()
        left = [cell.label for index, cell in enumerate(self._planned) if index not in self._records | self._failures]
        refused = [note.exit_code for note in read_notes(self.submission.folder).values() if note.state == "refused"]
        return Followed(
            self.store.root,
            [self._records[index] for index in sorted(self._records)],
            [(self._planned[index].label, self._failures[index]) for index in sorted(self._failures)],
            before,
            left,
            list_first([f"{job} {how}" for job, how in self._ended.items() if how]) if left else "",
            max(refused, default=1) if left else int(bool(self._failures)),
        )

    def _look_at_results(self) -> None:
        planned = self.submission.planned()
        if len(planned) == len(self.cells):
            self._planned = list(planned)
        for index, (cell, one) in enumerate(zip(self.cells, self._planned, strict=True)):
            if index in self._records or index in self._failures:
                continue
            try:
                record = self.store.record(one.id)
                if record:
                    self._records[index] = record.model_copy(update={"varied": dict(one.varied)})
                elif self._has_failed(one):
                    self._failures[index] = read_failure(failure_path(self.store.root, one.id)).reason
                else:
                    continue
            except InputError as error:
                self._failures[index] = str(error)
            self.overview.finish(cell, failed=index in self._failures, here=not self._is_first_look)
        self._is_first_look = False
        running = [lease.what for lease in list_leases(self.store.root / "work") if not lease.is_over]
        self.overview.show_running(len(running), list_first(running, 2))

    def _has_failed(self, cell: PlannedCell) -> bool:
        """Whether a cell has failed since the submission."""
        try:
            failed = failure_path(self.store.root, cell.id).stat().st_mtime_ns
            return failed >= self.submission.path.stat().st_mtime_ns
        except OSError:
            return False

    def _are_working(self) -> bool:
        """Whether a worker is left. Prints a line for each that has ended before all cells were run."""
        if time.monotonic() - self._last_look < self.executor.poll_seconds:
            return True
        self._last_look = time.monotonic()
        try:
            jobs = self.executor.jobs(self.workers)
        except RunError as error:
            if self._is_answering:
                print_line(self.console, f"{error}; asking again until it answers")
            self._is_answering = False
            return True
        self._is_answering = True
        for job, state in jobs.items():
            # Where it runs, or why it waits, may change often while it waits.
            if state.partition(" ")[0] != self._jobs.get(job, "").partition(" ")[0]:
                print_line(self.console, f"{job}: {state}; log: {self.executor.log(self.workers, job)}")
        notes = read_notes(self.submission.folder)
        for job in {**dict.fromkeys(self.submission.jobs), **self._jobs}:
            if job in jobs:
                self._ended.pop(job, None)
            elif job not in self._ended:
                self._ended[job] = how = self._how_it_ended(job, notes.get(job))
                if how:
                    print_line(self.console, f"{job} {how}; log: {self.executor.log(self.workers, job)}")
        self._jobs = dict(jobs)
        return bool(jobs)

    def _how_it_ended(self, job: str, note: WorkerNote | None) -> str:
        """In words; "" for a worker that had nothing left to run."""
        if note is None:
            last = self.executor.last_words(self.workers, job)
            return f"did not start{f': {last}' if last else ''}"
        if note.state == "running":
            last = self.executor.last_words(self.workers, job)
            return f"ended on {note.host}, killed or out of memory{f'; last line: {last}' if last else ''}"
        return "" if note.state == "finished" else f"{note.state} on {note.host}: {note.message}"
