"""Progress of one training: a bar on a terminal, a printed line now and then elsewhere, and a note in its work folder.

On a terminal the bar appears below the overview of the whole run, since rich nests live displays on one console.
`mimbench status` and `mimbench report --watch` read the note.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from mimbench.store.progress import TrainingProgress, read_progress, write_progress
from mimbench.text import format_duration, visible

MOST_LOGS = 3
"""Logs of a step that fit on the line."""
QUIET_SECONDS = 15.0
"""Seconds between two printed lines if the output is no terminal."""
NOTE_SECONDS = 5.0
"""Seconds between two notes."""
MOST_POINTS = 200
"""Points of the loss curve in a note; beyond that, two neighbours become one."""


def print_line(console: Console, text: str) -> None:
    """Print one line as it is: without rich's markup, highlighting and line breaks."""
    console.print(visible(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Shows epoch, steps, images per second, loss, learning rate and time left. A context manager."""

    def __init__(self, console: Console, label: str, note: Path | None = None) -> None:
        """note: file to write how far the training is; None: none is written."""
        self._console, self._label, self._file = console, label, note
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[unit]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("{task.fields[left]}"),
        ]
        self._bar = Bar(
            *columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4
        )
        self._task = self._bar.add_task(label, total=None, unit="", note="", left="")
        self._first = self._total = self._images_per_step = 0
        self._unit, self._units = "epoch", 0
        self._started = self._last_line = time.monotonic()
        self._last_note = float("-inf")
        self._note = self._monitored = ""
        self._losses = _LossCurve()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, total: int, done: int, images_per_step: int, unit: str = "epoch", units: int = 1) -> None:
        """Begin to count.

        Args:
            total: micro-batches of the whole training.
            done: micro-batches that an earlier, interrupted run did.
            images_per_step: images per micro-batch.
            unit: "epoch" or "step".
            units: how many of them the whole training has.
        """
        self._first, self._total, self._images_per_step = done, total, images_per_step
        self._unit, self._units = unit, units
        self._started = self._last_line = time.monotonic()
        earlier = read_progress(self._file) if self._file and done else None
        if earlier and earlier.unit == unit:
            self._losses.go_on([point for point in earlier.loss if point[0] <= self._units_done(done)], done)
        self._bar.update(self._task, total=total, completed=done, unit=self._describe_unit(done))
        self._write_note(done, {})

    def step(self, done: int, loss: float, rate: float, logs: Mapping[str, float] = MappingProxyType({})) -> None:
        """Show that `done` micro-batches of the total are done, the learning rate, and what the step logs."""
        logged = "".join(f"  {name} {value:.4g}" for name, value in list(logs.items())[:MOST_LOGS])
        self._note = f"{self._speed(done):,.0f} images/s  loss {loss:.4f}  lr {rate:.2g}{logged}{self._monitored}"
        left = f"{format_duration(self._seconds_left(done))} left"
        self._bar.update(self._task, completed=done, unit=self._describe_unit(done), note=self._note, left=left)
        self._losses.add(self._units_done(done), loss)
        if time.monotonic() - self._last_note >= NOTE_SECONDS or done >= self._total:
            self._write_note(done, logs)

    def leave_out(self, seconds: float) -> None:
        """Do not count seconds in which nothing was trained for the speed and the time left."""
        self._started += seconds

    def monitored(self, values: Mapping[str, float], seconds: float, epochs: float, *, is_last: bool) -> None:
        """Show what monitors measured after so many epochs, on this line and the next ones.

        If the output is no terminal, a line of their own follows the last measurement.

        Args:
            seconds: that the measurement took.
            is_last: whether the training ends here.
        """
        self._monitored = "".join(f"  {name} {value:.4g}" for name, value in values.items())
        if is_last and values:
            text = f"{self._label}: after {epochs:g} epochs:{self._monitored}  (measured in {seconds:.1f} s)"
            print_line(self._console, text)

    def line(self, unit: str, done: int, total: int) -> None:
        """Print a line, such as "epoch 2/4 ...", if the output is no terminal and the last line is old enough.

        Args:
            unit: "epoch" or "step".
            done: how many are done.
            total: how many there are.
        """
        now = time.monotonic()
        if self._console.is_terminal or (now - self._last_line < QUIET_SECONDS and done < total):
            return
        self._last_line = now
        left = self._seconds_left(done / max(total, 1) * self._total)
        line = f"{self._label}: {unit} {done}/{total}  {self._note}  {format_duration(left)} left"
        print_line(self._console, line)

    def _speed(self, done: int) -> float:
        """Images per second, without those of an earlier, interrupted run."""
        seconds = time.monotonic() - self._started
        return (done - self._first) * self._images_per_step / max(seconds, 1e-9)

    def _seconds_left(self, done: float) -> float:
        """At the speed so far. done: micro-batches."""
        seconds_each = (time.monotonic() - self._started) / max(done - self._first, 1e-9)
        return seconds_each * max(self._total - done, 0)

    def _units_done(self, done: int) -> float:
        return done / max(self._total, 1) * self._units

    def _describe_unit(self, done: int) -> str:
        """Such as "epoch 2/4": the one that runs now."""
        return f"{self._unit} {min(int(self._units_done(done)) + 1, self._units)}/{self._units}"

    def _write_note(self, done: int, logs: Mapping[str, float]) -> None:
        if self._file is None:
            return
        self._last_note = time.monotonic()
        has_speed = done > self._first
        progress = TrainingProgress(
            label=self._label,
            unit=self._unit,
            done=self._units_done(done),
            total=self._units,
            loss=self._losses.points,
            logs={name: value for name, value in logs.items() if math.isfinite(value)},  # NaN: over no samples
            images_per_second=self._speed(done) if has_speed else 0.0,
            seconds_left=self._seconds_left(done) if has_speed else 0.0,
        )
        write_progress(self._file, progress)


class _LossCurve:
    """A curve of at most MOST_POINTS points, however long the training is: each is a mean over as many steps."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._per_point = 1
        self._open: list[float] = []

    def go_on(self, points: list[tuple[float, float]], done: int) -> None:
        """Continue the curve of an earlier run, which stands for `done` steps."""
        self.points = points
        self._per_point = max(1, round(done / max(1, len(points))))

    def add(self, at: float, loss: float) -> None:
        self._open.append(loss)
        if len(self._open) < self._per_point:
            return
        self.points.append((at, sum(self._open) / len(self._open)))
        self._open = []
        if len(self.points) >= MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=False)
            self.points = [(after[0], (before[1] + after[1]) / 2) for before, after in pairs]
            self._per_point *= 2
