"""Progress of one training: a bar on a terminal, a printed line now and then elsewhere.

On a terminal the bar appears below the overview of the whole run, since rich nests live displays on one console.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mimbench.text import visible

MOST_LOGS = 3
"""Logs of a step that fit on the line."""
QUIET_SECONDS = 15.0
"""Seconds between two printed lines if the output is no terminal."""


def print_line(console: Console, text: str) -> None:
    """Print one line as it is: without rich's markup, highlighting and line breaks."""
    console.print(visible(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)


class Progress:
    """Shows steps, images per second, loss, learning rate and time left. A context manager."""

    def __init__(self, console: Console, label: str) -> None:
        self._console, self._label = console, label
        columns: list[ProgressColumn] = [
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        ]
        self._bar = Bar(
            *columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4
        )
        self._task = self._bar.add_task(label, total=None, note="")
        self._first = self._total = self._images_per_step = 0
        self._started = self._last_line = time.monotonic()
        self._note = self._monitored = ""

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, total: int, done: int, images_per_step: int) -> None:
        """Begin to count.

        Args:
            total: micro-batches of the whole training.
            done: micro-batches that an earlier, interrupted run did.
            images_per_step: images per micro-batch.
        """
        self._first, self._total, self._images_per_step = done, total, images_per_step
        self._started = self._last_line = time.monotonic()
        self._bar.update(self._task, total=total, completed=done)

    def step(self, done: int, loss: float, rate: float, logs: Mapping[str, float] = MappingProxyType({})) -> None:
        """Show that `done` micro-batches of the total are done, the learning rate, and what the step logs."""
        seconds = time.monotonic() - self._started
        speed = (done - self._first) * self._images_per_step / max(seconds, 1e-9)
        logged = "".join(f"  {name} {value:.4g}" for name, value in list(logs.items())[:MOST_LOGS])
        self._note = f"{speed:,.0f} images/s  loss {loss:.4f}  lr {rate:.2g}{logged}{self._monitored}"
        self._bar.update(self._task, completed=done, note=self._note)

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
        done_before = self._first / max(self._total, 1) * total  # by an earlier, interrupted run
        seconds_each = (now - self._started) / max(done - done_before, 1e-9)
        left = seconds_each * (total - done)
        line = f"{self._label}: {unit} {done}/{total}  {self._note}  {left:.0f} s left"
        print_line(self._console, line)
