"""Writes down which cells failed, and why: after an error, and right before one on another rank ends the run."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal

from mimbench.engine.ranks import on_first_rank
from mimbench.errors import MimbenchError, RunError
from mimbench.files import write_atomic
from mimbench.harness.planning.cells import Cell, Request
from mimbench.harness.running.record import build_failure
from mimbench.harness.running.session import Session
from mimbench.rank_watch import noting_failure

Part = Literal["pretraining", "task"]


class FailureNotes:
    """The failures of one run."""

    def __init__(self, session: Session, request: Request) -> None:
        self.session, self.store, self.request = session, session.store, request

    @on_first_rank
    def save(self, cells: Sequence[Cell], part: Part, error: Exception, reason: str, key: str) -> None:
        """Write a failure per cell, and the traceback of an unexpected error into the work folder `key`."""
        traceback_path = None
        try:
            if not isinstance(error, MimbenchError):
                path = self.store.work(key) / "error.txt"
                write_atomic(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
                self.session.say(f"traceback: {path}")
                traceback_path = str(path.relative_to(self.store.root))
        except (OSError, MimbenchError) as problem:  # a full disk may be what failed the cell
            self.session.say(f"the traceback cannot be saved: {problem}")
        try:
            self._write(cells, part, error, reason, traceback_path)
        except OSError as problem:
            self.session.say(f"the failure cannot be saved: {problem}")

    def noting(self, cells: Sequence[Cell], part: Part) -> AbstractContextManager[None]:
        """Within this context, an error of one rank that ends all ranks is noted as the failure of these cells."""
        return noting_failure(lambda reason: self._write(cells, part, RunError(reason), reason, None))

    def _write(
        self, cells: Sequence[Cell], part: Part, error: Exception, reason: str, traceback_path: str | None
    ) -> None:
        for cell in cells:
            self.store.save_failure(build_failure(self.request, cell, part, error, reason, traceback_path))
