"""Running a plan: each pretraining, then all its tasks; what fails is noted, and the rest goes on.

Several processes may run one plan on one results folder: each takes the first thing that nobody is at. What others
are at it passes over, and looks at again at the end.
"""

from __future__ import annotations

import gc
import itertools
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from mimbench.engine.device import device_name
from mimbench.engine.ranks import on_first_rank
from mimbench.errors import InputError, MimbenchError
from mimbench.files import write_atomic
from mimbench.harness.planning.cells import Cell, Request, in_words
from mimbench.harness.planning.code import code_of_cell
from mimbench.harness.planning.estimate import Estimator
from mimbench.harness.running.overview import Overview
from mimbench.harness.running.record import build_failure, options_of, reason_of
from mimbench.harness.running.trainer import Harness
from mimbench.recipe import is_of_task
from mimbench.store.failure import Failure, failure_path, read_failure
from mimbench.store.record import Record
from mimbench.store.store import StoredCheckpoint

POLL_SECONDS = 1.0
"""Between two looks at what other processes are at, once nothing else is left."""


@dataclass
class Outcome:
    """What a run led to: a record for each cell that went through, a reason for each that did not."""

    records: list[Record] = field(default_factory=list)
    """In the order of the plan."""
    failures: list[tuple[Cell, str]] = field(default_factory=list)
    before: int = 0
    """How many of the records had been there."""


class Grid:
    """One run of one plan."""

    def __init__(self, harness: Harness, request: Request, cells: Sequence[Cell]) -> None:
        self.harness, self.store, self.request, self.cells = harness, harness.store, request, list(cells)
        self._records: dict[str, Record] = {}
        self._failures: dict[str, str] = {}
        self._checkpoints: dict[str, StoredCheckpoint] = {}
        # A failure of another process counts as one of this run only if it is newer than the run.
        self._old_failures = {cell.record_id: self._noted(cell) for cell in self.cells}
        self.overview = Overview(harness.console, device_name(harness.device), self.cells)

    def run(self) -> Outcome:
        """Run every cell that has no record yet. A cell that fails does not stop the others.

        Raises:
            InputError: it is the plan's only cell, and cannot run as it was asked for.
        """
        waiting = self._open(self.cells)
        before = len(self._records)
        self._say_recorded()
        if len(waiting) > 1:
            self.overview.estimator = Estimator.of_results(self.store.root, self.overview.estimator.device)
        said = False
        with self.overview.shown():
            while waiting:
                groups = [list(group) for _, group in itertools.groupby(waiting, lambda c: c.pretraining.fingerprint)]
                held = [cell for group in groups for cell in self._group(group)]
                if len(held) == len(waiting):
                    if not said:
                        self.harness.say(f"waiting: another process runs {_named(held)}")
                    said = True
                    time.sleep(POLL_SECONDS)
                waiting = held
        return Outcome(
            [self._records[cell.record_id] for cell in self.cells if cell.record_id in self._records],
            [(cell, self._failures[cell.record_id]) for cell in self.cells if cell.record_id in self._failures],
            before,
        )

    def _group(self, cells: list[Cell]) -> list[Cell]:
        """Run cells of one pretraining; those that another process holds, or whose pretraining it does, come back."""
        cells = self._open(cells)
        if not cells:
            return []
        wanted = cells[0].pretraining
        try:
            checkpoint = self._checkpoints.get(wanted.fingerprint) or self.harness.found(wanted)
            if checkpoint is None:
                with self.harness.alone(wanted.training) as free:
                    if not free:
                        return cells
                    cells = self._open(cells)
                    checkpoint = self._pretrained(cells) if cells else None
        except Exception as error:
            self._fail(cells, "pretraining", error)
            return []
        if checkpoint is None:
            return []
        self._checkpoints[wanted.fingerprint] = checkpoint
        self.overview.trained.add(wanted.fingerprint)
        return [cell for cell in cells if not self._cell(cell, checkpoint)]

    def _pretrained(self, cells: Sequence[Cell]) -> StoredCheckpoint | None:
        """The checkpoint of these cells, and of all others that ask for an epoch of its training.

        Where the training fails, those that have none by then fail with it.
        """
        wanted = cells[0].pretraining
        checkpoint = self.harness.found(wanted)
        if checkpoint:
            return checkpoint
        self.overview.runs(f"pretraining {_trained(cells)}")
        of_training = [
            cell for cell in self.cells if cell.pretraining.training == wanted.training and self._is_open(cell)
        ]
        asked = {cell.pretraining.fingerprint: cell.pretraining for cell in of_training}
        try:
            self.harness.train(list(asked.values()))
        except Exception as error:
            lost = {one.fingerprint for one in self.harness.lacking(list(asked.values()))}
            self._fail([cell for cell in of_training if cell.pretraining.fingerprint in lost], "pretraining", error)
        checkpoint = self.harness.stored(wanted)
        if checkpoint:
            self.overview.estimator.add_card(checkpoint.card)
        return checkpoint

    def _cell(self, cell: Cell, checkpoint: StoredCheckpoint) -> bool:
        """Run a cell, unless another process holds it: then False."""
        with self.harness.alone(cell.record_id) as free:
            if not free:
                return False
            if not self._open([cell]):
                return True
            try:
                self.overview.runs(cell.label)
                record = self.harness.measure(self.request, cell, checkpoint)
            except Exception as error:
                self._fail([cell], "task", error)
                return True
        self._records[cell.record_id] = record
        self.overview.estimator.add_record(record.as_json())
        self.overview.ended(cell)
        return True

    def _open(self, cells: list[Cell]) -> list[Cell]:
        """Those of `cells` that are still to be run: without a record, and not just failed here or elsewhere."""
        cells = [cell for cell in cells if self._is_open(cell)]
        seen = on_first_rank(lambda: [self._look(cell) for cell in cells])
        for cell, found in zip(cells, seen, strict=True):
            if isinstance(found, Record):
                self._records[cell.record_id] = found
                self.overview.ended(cell, here=False)
            elif isinstance(found, Failure):
                self._failures[cell.record_id] = found.reason
                self.overview.ended(cell, failed=True, here=False)
            elif isinstance(found, Exception):
                self._fail([cell], "task", found)
        return [cell for cell, found in zip(cells, seen, strict=True) if found is None]

    def _is_open(self, cell: Cell) -> bool:
        return cell.record_id not in self._records and cell.record_id not in self._failures

    def _look(self, cell: Cell) -> Record | Failure | Exception | None:
        try:
            record = self.store.record(cell.record_id) if self.harness.counts(cell.record_id) else None
            if record:
                self.store.settle(cell.record_id)
                return record.model_copy(update={"varied": dict(cell.varied)})  # as this command asked for it
        except InputError as error:
            return error
        if self._noted(cell) == self._old_failures[cell.record_id]:
            return None
        try:
            return read_failure(failure_path(self.store.root, cell.record_id))
        except InputError:  # gone meanwhile, or damaged: then it tells nothing, and the cell is tried
            return None

    def _noted(self, cell: Cell) -> bytes | None:
        """What is noted of a cell's last failure; None: nothing."""
        try:
            return failure_path(self.store.root, cell.record_id).read_bytes()
        except OSError:
            return None

    def _fail(self, cells: list[Cell], stage: Literal["pretraining", "task"], error: Exception) -> None:
        """Note one error for all cells that it stops."""
        if len(self.cells) == 1 and isinstance(error, InputError):
            raise error
        reason = reason_of(error, options_of(cells[0], stage))
        key, what = cells[0].record_id, cells[0].label
        if stage == "pretraining":
            count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
            key, what = cells[0].pretraining.fingerprint, f"pretraining {_trained(cells)}, for {count}"
        self.harness.say(f"failed: {what}: {reason}")
        on_first_rank(lambda: self._note(cells, stage, error, reason, key))
        for cell in cells:
            self._failures[cell.record_id] = reason
            self.overview.ended(cell, failed=True)
        traceback.clear_frames(error.__traceback__)  # they hold models, whose memory the next cell may need
        gc.collect()
        if self.harness.device.type == "cuda":
            torch.cuda.empty_cache()

    def _note(
        self, cells: list[Cell], stage: Literal["pretraining", "task"], error: Exception, reason: str, key: str
    ) -> None:
        kept = None
        try:
            if not isinstance(error, MimbenchError):
                path = self.store.work(key) / "error.txt"
                write_atomic(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
                self.harness.say(f"traceback: {path}")
                kept = str(path.relative_to(self.store.root))
        except (OSError, MimbenchError) as problem:  # a full disk may be what failed the cell
            self.harness.say(f"the traceback cannot be kept: {problem}")
        try:
            for cell in cells:
                self.store.save_failure(build_failure(self.request, cell, stage, error, reason, kept))
        except OSError as problem:
            self.harness.say(f"the failure cannot be kept: {problem}")

    def _say_recorded(self) -> None:
        there = [cell for cell in self.cells if cell.record_id in self._records]
        if there:
            path = self.store.record_path(there[0].record_id)
            named = there[0].label if len(there) == 1 else f"{len(there)} of {len(self.cells)} cells"
            self.harness.say(f"already recorded: {named} ({path if len(there) == 1 else path.parent})")
        for cell in there:
            noted = self._records[cell.record_id].provenance
            self.harness.say_changes(noted, code_of_cell(cell), "this was recorded")


def _named(cells: Sequence[Cell]) -> str:
    return cells[0].label if len(cells) == 1 else f"{cells[0].label} and {len(cells) - 1} more"


def _trained(cells: Sequence[Cell]) -> str:
    """The pretraining of these cells in words, with what of the varied values is its own."""
    varied = {path: value for path, value in cells[0].varied.items() if not is_of_task(path)}
    return f"{cells[0].pretraining.label}{in_words(varied)}"
