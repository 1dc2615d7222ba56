"""Where a grid stands: kept in sight on a terminal, told now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from mimbench.engine.progress import QUIET_SECONDS, Screen, say
from mimbench.harness.planning.cells import Cell
from mimbench.harness.planning.estimate import Estimator, in_words


class Overview:
    """Cells done, failed, running and left of one command, and when it will end."""

    def __init__(self, console: Console, device: str, cells: Sequence[Cell]) -> None:
        """`device` in words, as records name it."""
        self.console, self.estimator = console, Estimator(device)
        self.left = {cell.record_id: cell for cell in cells}
        self.trained: set[str] = set()
        """Fingerprints of the pretrainings that are there."""
        self.total, self.failed = len(cells), 0
        self._ran_here = 0
        self._running = ""
        self._begun = self._since = self._spoke = time.monotonic()
        self._live = False
        columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._bar = Bar(*columns, console=console)
        self._task = self._bar.add_task("cells", total=self.total, note="")

    @property
    def done(self) -> int:
        """With those that had a record before."""
        return self.total - len(self.left) - self.failed

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Told from now on, as long as this lasts; where one cell is left there is nothing to tell."""
        self._begun, self._live = time.monotonic(), len(self.left) > 1
        if not (self._live and isinstance(self.console, Screen)):
            yield
            return
        with self.console.showing(self._bar):
            self._refresh()
            yield

    def runs(self, what: str) -> None:
        """What is running from now on; "": nothing."""
        self._running, self._since = what, time.monotonic()
        self._refresh()

    def ended(self, cell: Cell, *, failed: bool = False, here: bool = True) -> None:
        """A cell has its record, or has failed; `here`: in this process."""
        self.left.pop(cell.record_id, None)
        self.failed += failed
        self._ran_here += here
        self.runs("")
        now = time.monotonic()
        due = now - self._spoke >= QUIET_SECONDS or not self.left
        if self._live and due and not self.console.is_terminal:
            self._spoke = now
            say(self.console, f"grid: {self.done} of {self.total} cells done, {self._note()}")

    def seconds_left(self) -> float | None:
        """Until all is done by this process alone; None where nothing is known yet."""
        pretrainings = {cell.pretraining.fingerprint: cell.pretraining for cell in self.left.values()}
        untrained = [wanted for key, wanted in pretrainings.items() if key not in self.trained]
        estimate = self.estimator.of(untrained, self.left.values())
        if not estimate.unknown:
            running = time.monotonic() - self._since if self._running else 0.0
            return max(estimate.seconds - running, 0.0)
        if self._ran_here:
            return (time.monotonic() - self._begun) / self._ran_here * len(self.left)
        return None

    def _note(self) -> str:
        parts = [f"{self.failed} failed"] if self.failed else []
        parts.append(f"{len(self.left)} left")
        seconds = self.seconds_left()
        if self.left and seconds is None:
            parts.append("no estimate yet")
        elif self.left and seconds is not None:
            end = datetime.now() + timedelta(seconds=seconds)
            day = "%H:%M" if end.date() == datetime.now().date() else "%a %d %b %H:%M"
            parts.append(f"about {in_words(seconds)}, until {end.strftime(day)}")
        return ", ".join(parts)

    def _refresh(self) -> None:
        if self._live and self.console.is_terminal:
            now = f"  now: {self._running}" if self._running else ""
            self._bar.update(self._task, completed=self.done, note=self._note() + now)
