"""Runs a plan: each pretraining, then all its tasks. A cell that fails is noted, and the others still run.

Several runs may share one results folder. Leases keep them apart: one per training, one per record. This module alone
takes them, never waits for one, and comes back at the end to the cells that another run held.
"""

from __future__ import annotations

import gc
import itertools
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import torch

from mimbench.engine.device import device_name
from mimbench.engine.ranks import on_first_rank
from mimbench.errors import InputError, LeaseLost
from mimbench.harness.planning.cells import Cell, Pretraining, Request, distinct_pretrainings, varied_text
from mimbench.harness.planning.code import code_of_cell
from mimbench.harness.planning.estimate import Estimator
from mimbench.harness.running.failures import FailureNotes
from mimbench.harness.running.measurement import measure
from mimbench.harness.running.overview import Overview
from mimbench.harness.running.record import options_of, reason_of
from mimbench.harness.running.session import Session
from mimbench.harness.running.trainer import Trainer
from mimbench.recipe import is_of_task
from mimbench.store.failure import Failure, failure_path, read_failure
from mimbench.store.record import Record
from mimbench.store.store import StoredCheckpoint

POLL_SECONDS = 1.0
"""Between two checks, when other runs hold all cells that are left."""


@dataclass
class Outcome:
    """The result of a run: a record for each cell that succeeded, a reason for each that failed."""

    records: list[Record] = field(default_factory=list)
    """In the order of the plan."""
    failures: list[tuple[Cell, str]] = field(default_factory=list)
    before: int = 0
    """How many of the records existed before the run."""


class Scheduler:
    """One run of one plan."""

    def __init__(self, session: Session, request: Request, cells: Sequence[Cell]) -> None:
        self.session, self.store, self.request, self.cells = session, session.store, request, list(cells)
        self.trainer, self.failures = Trainer(session), FailureNotes(session, request)
        # Results of this run, by record id; checkpoints by fingerprint.
        self._records: dict[str, Record] = {}
        self._failures: dict[str, str] = {}
        self._checkpoints: dict[str, StoredCheckpoint] = {}
        # A failure that another run has written counts only if it is newer than the start of this one.
        self._old_failures = {cell.record_id: self._failure_file(cell) for cell in self.cells}
        self.overview = Overview(session.console, device_name(session.device), self.cells)

    def run(self) -> Outcome:
        """Run every cell that has no record yet. A cell that fails, for whatever reason, does not stop the others."""
        waiting = self._failed_last(self._unfinished(self.cells))
        before = len(self._records)
        self._say_recorded()
        if len(waiting) > 1:
            self.overview.estimator = Estimator.from_results(self.store.root, self.overview.estimator.device)
        has_said_waiting = False
        with self.overview.displayed():
            while waiting:
                groups = itertools.groupby(waiting, lambda cell: cell.pretraining.fingerprint)
                held = [cell for _, group in groups for cell in self._run_group(list(group))]
                if len(held) == len(waiting):  # nothing moved: other runs hold all that is left
                    if not has_said_waiting:
                        self.session.say(f"waiting: another process runs {_name_cells(held)}")
                    has_said_waiting = True
                    time.sleep(POLL_SECONDS)
                waiting = held
        return Outcome(
            [self._records[cell.record_id] for cell in self.cells if cell.record_id in self._records],
            [(cell, self._failures[cell.record_id]) for cell in self.cells if cell.record_id in self._failures],
            before,
        )

    def _failed_last(self, cells: list[Cell]) -> list[Cell]:
        """The same cells; last those of a pretraining with failures of an earlier run, which may end this one too."""
        failed = self._failed_before()
        trainings = {cell.pretraining.fingerprint for cell in cells if cell.record_id in failed}
        return sorted(cells, key=lambda cell: cell.pretraining.fingerprint in trainings)

    @on_first_rank
    def _failed_before(self) -> set[str]:
        return {key for key, content in self._old_failures.items() if content is not None}

    def _run_group(self, cells: list[Cell]) -> list[Cell]:
        """Run cells that share a pretraining. Returns those that another run holds, by their own or its lease."""
        cells = self._unfinished(cells)
        if not cells:
            return []
        pretraining = cells[0].pretraining
        try:
            checkpoint = self._existing_checkpoint(pretraining)
            if checkpoint is None:
                with self._hold_training(cells) as is_held:
                    if not is_held:
                        return cells
                    # Another run may have finished cells, or trained, just before this one got the lease.
                    cells = self._unfinished(cells)
                    checkpoint = self._pretrain(cells) if cells else None
        except LeaseLost:
            raise
        except Exception as error:
            self._fail(cells, "pretraining", error)
            return []
        if checkpoint is None:
            return []
        self._checkpoints[pretraining.fingerprint] = checkpoint
        self.overview.trained.add(pretraining.fingerprint)
        held = [cell for cell in cells if not self._run_cell(cell, checkpoint)]
        fingerprint = pretraining.fingerprint
        if all(self._is_finished(cell) for cell in self.cells if cell.pretraining.fingerprint == fingerprint):
            del self._checkpoints[fingerprint]
        return held

    def _hold_training(self, cells: Sequence[Cell]) -> AbstractContextManager[bool]:
        training = cells[0].pretraining.training
        return self.session.shared.hold_lease(training, f"pretraining {_name_pretraining(cells)}")

    def _existing_checkpoint(self, pretraining: Pretraining) -> StoredCheckpoint | None:
        """The checkpoint of a pretraining if it needs no training. Raises InputError if it is damaged."""
        if pretraining.fingerprint in self._checkpoints:
            return self._checkpoints[pretraining.fingerprint]
        checkpoint = self.trainer.existing_checkpoint(pretraining)
        if checkpoint and not pretraining.checkpoint:
            # A run that was killed between saving the checkpoint and cleaning up has left its work folder.
            with self.session.shared.hold_lease(pretraining.training, f"clean up {pretraining.label}") as is_held:
                if is_held:
                    self.trainer.discard_work(pretraining)
        return checkpoint

    def _pretrain(self, cells: Sequence[Cell]) -> StoredCheckpoint | None:
        """Train the pretraining of these cells, and all others of its training that the plan needs.

        If the training fails, so do all cells whose weights it has not saved. The caller holds the training's lease.

        Returns:
            The checkpoint of these cells; None if their epoch or step was not reached.
        """
        pretraining = cells[0].pretraining
        checkpoint = self.trainer.existing_checkpoint(pretraining)
        if checkpoint:
            return checkpoint
        self.overview.start(f"pretraining {_name_pretraining(cells)}")
        cells_of_training = [
            cell
            for cell in self.cells
            if cell.pretraining.training == pretraining.training and not self._is_finished(cell)
        ]
        pretrainings = list(distinct_pretrainings(cells_of_training).values())
        try:
            with self.failures.noting(cells_of_training, "pretraining"):
                self.trainer.train(pretrainings)
        except LeaseLost:
            raise
        except Exception as error:
            lost = {missing.fingerprint for missing in self.trainer.missing(pretrainings)}
            failed = [cell for cell in cells_of_training if cell.pretraining.fingerprint in lost]
            self._fail(failed, "pretraining", error)
        checkpoint = self.trainer.load_stored(pretraining)
        if checkpoint:
            self.overview.estimator.add_card(checkpoint.card)
        return checkpoint

    def _run_cell(self, cell: Cell, checkpoint: StoredCheckpoint) -> bool:
        """Run a cell. Returns False, without running it, if another run holds it."""
        with self.session.shared.hold_lease(cell.record_id, cell.label) as is_held:
            if not is_held:
                return False
            if not self._unfinished([cell]):
                return True
            try:
                self.overview.start(cell.label)
                with self.failures.noting([cell], "task"):
                    record = measure(self.session, self.request, cell, checkpoint)
            except LeaseLost:
                raise
            except Exception as error:
                self._fail([cell], "task", error)
                return True
        self._records[cell.record_id] = record
        self.overview.estimator.add_record(record.as_json())
        self.overview.finish(cell)
        return True

    def _unfinished(self, cells: list[Cell]) -> list[Cell]:
        """Those of `cells` that have to run: without a record, and not failed in this run or a concurrent one.

        Records and failures on disk that this run has not seen yet are added to its results.
        """
        cells = [cell for cell in cells if not self._is_finished(cell)]
        results = self._look_up(cells)
        for cell, result in zip(cells, results, strict=True):
            if isinstance(result, Record):
                self._records[cell.record_id] = result
                self.overview.finish(cell, here=False)
            elif isinstance(result, Failure):
                self._failures[cell.record_id] = result.reason
                self.overview.finish(cell, failed=True, here=False)
            elif isinstance(result, Exception):
                self._fail([cell], "task", result)
        return [cell for cell, result in zip(cells, results, strict=True) if result is None]

    def _is_finished(self, cell: Cell) -> bool:
        return cell.record_id in self._records or cell.record_id in self._failures

    @on_first_rank
    def _look_up(self, cells: list[Cell]) -> list[Record | Failure | Exception | None]:
        """What the results folder holds of each cell; an InputError stands for a damaged record."""
        return [self._look_up_cell(cell) for cell in cells]

    def _look_up_cell(self, cell: Cell) -> Record | Failure | Exception | None:
        try:
            record = self.store.record(cell.record_id) if self.session.accepts(cell.record_id) else None
            if record:
                self.store.clear_failure(cell.record_id)
                # One record may belong to several requests, and each of them varies other settings.
                return record.model_copy(update={"varied": dict(cell.varied)})
        except InputError as error:
            return error
        if self._failure_file(cell) == self._old_failures[cell.record_id]:
            return None
        try:
            return read_failure(failure_path(self.store.root, cell.record_id))
        except InputError:  # removed meanwhile, or damaged: the cell is tried again
            return None

    def _failure_file(self, cell: Cell) -> bytes | None:
        """Content of the file that describes the cell's last failure; None if there is none."""
        try:
            return failure_path(self.store.root, cell.record_id).read_bytes()
        except OSError:
            return None

    def _fail(self, cells: list[Cell], stage: Literal["pretraining", "task"], error: Exception) -> None:
        """Write down one error for all cells that it stops."""
        reason = reason_of(error, options_of(cells[0], stage))
        key, what = cells[0].record_id, cells[0].label
        if stage == "pretraining":
            count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
            key, what = cells[0].pretraining.fingerprint, f"pretraining {_name_pretraining(cells)}, for {count}"
        if len(self.cells) > 1:  # the end of a run lists its failures; of a single cell that is the next line
            self.session.say(f"failed: {what}: {reason}")
        self.failures.save(cells, stage, error, reason, key)
        for cell in cells:
            self._failures[cell.record_id] = reason
            self.overview.finish(cell, failed=True)
        traceback.clear_frames(error.__traceback__)  # they hold models, whose memory the next cell may need
        gc.collect()
        if self.session.device.type == "cuda":
            torch.cuda.empty_cache()

    def _say_recorded(self) -> None:
        recorded = [cell for cell in self.cells if cell.record_id in self._records]
        if recorded:
            path = self.store.record_path(recorded[0].record_id)
            is_single = len(recorded) == 1
            what = recorded[0].label if is_single else f"{len(recorded)} of {len(self.cells)} cells"
            self.session.say(f"already recorded: {what} ({path if is_single else path.parent})")
        for cell in recorded:
            provenance = self._records[cell.record_id].provenance
            self.session.say_changes(provenance, code_of_cell(cell), "this was recorded")


def _name_cells(cells: Sequence[Cell]) -> str:
    return cells[0].label if len(cells) == 1 else f"{cells[0].label} and {len(cells) - 1} more"


def _name_pretraining(cells: Sequence[Cell]) -> str:
    """The pretraining of these cells in words, with the varied settings that belong to it."""
    varied = {path: value for path, value in cells[0].varied.items() if not is_of_task(path)}
    return f"{cells[0].pretraining.label}{varied_text(varied)}"
