"""Progress of a plan: a live line on a terminal, a printed line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from mimbench.engine.progress import QUIET_SECONDS, print_line
from mimbench.harness.planning.cells import Cell, distinct_pretrainings
from mimbench.harness.planning.estimate import Estimator
from mimbench.text import format_duration


class Overview:
    """Counts cells that are done, failed, running and left, and estimates when the run will end."""

    def __init__(self, console: Console, device: str, cells: Sequence[Cell]) -> None:
        """device: its name, as `device_name` gives it."""
        self.console, self.estimator = console, Estimator(device)
        self.left = {cell.record_id: cell for cell in cells}
        self.trained: set[str] = set()
        """Fingerprints of the pretrainings that have a checkpoint."""
        self.total, self.failed = len(cells), 0
        self._finished_here = 0
        self._running = ""
        self._running_elsewhere = 0
        # Times of: the start of the run, the start of what is running, the last printed line.
        self._run_start = self._start = self._last_line = time.monotonic()
        self._is_active = False
        columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._bar = Bar(*columns, console=console, transient=True, refresh_per_second=4)
        self._task = self._bar.add_task("cells", total=self.total, note="")

    @property
    def done(self) -> int:
        """Cells that have a record, from this run or before."""
        return self.total - len(self.left) - self.failed

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Report progress within this context. A single cell gets no overview: its own progress bar suffices."""
        self._run_start, self._is_active = time.monotonic(), len(self.left) > 1
        if not (self._is_active and self.console.is_terminal):
            yield
            return
        with self._bar:  # the bar of a training is shown below this one
            self._refresh()
            yield

    def start(self, what: str) -> None:
        """Show what is running from now on; "" if nothing is."""
        self._running, self._start = what, time.monotonic()
        self._refresh()

    def show_running(self, count: int, what: str) -> None:
        """Show how many things other processes run now, and what."""
        self._running_elsewhere, self._running = count, what
        self._refresh()

    def finish(self, cell: Cell, *, failed: bool = False, here: bool = True) -> None:
        """Count a cell that has its record, or has failed. here: it was this process that ran it."""
        self.left.pop(cell.record_id, None)
        self.failed += failed
        self._finished_here += here
        self.start("")
        now = time.monotonic()
        is_due = now - self._last_line >= QUIET_SECONDS or not self.left
        if self._is_active and is_due and not self.console.is_terminal:
            self._last_line = now
            print_line(self.console, f"grid: {self.done} of {self.total} cells done, {self._note()}")

    def seconds_left(self) -> float | None:
        """Seconds until all is run if this process alone runs it; None if there is no basis for an estimate."""
        pretrainings = distinct_pretrainings(self.left.values())
        untrained = [pretraining for key, pretraining in pretrainings.items() if key not in self.trained]
        estimate = self.estimator.estimate(untrained, self.left.values())
        if not estimate.unknown:
            elapsed = time.monotonic() - self._start if self._running else 0.0
            return max(estimate.seconds - elapsed, 0.0)
        if self._finished_here:  # no past results to go by: the mean time per cell so far
            return (time.monotonic() - self._run_start) / self._finished_here * len(self.left)
        return None

    def _note(self) -> str:
        parts = [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self._running_elsewhere} running"] if self._running_elsewhere else []
        parts.append(f"{len(self.left)} left")
        seconds = self.seconds_left()
        if self.left and seconds is None:
            parts.append("no estimate yet")
        elif self.left and seconds is not None:
            end = datetime.now() + timedelta(seconds=seconds)
            day = "%H:%M" if end.date() == datetime.now().date() else "%a %d %b %H:%M"
            parts.append(f"about {format_duration(seconds)}, until {end.strftime(day)}")
        return ", ".join(parts)

    def _refresh(self) -> None:
        if self._is_active and self.console.is_terminal:
            now = f"  now: {self._running}" if self._running else ""
            self._bar.update(self._task, completed=self.done, note=self._note() + now)
