"""What a person sees while something runs: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mimbench.text import visible

QUIET_SECONDS = 15.0
"""Where the output is no terminal: seconds between two lines."""


def print_line(console: Console, text: str) -> None:
    """One line as it is: no markup, no colours of rich's own, no breaks."""
    console.print(visible(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)


class LiveConsole(Console):
    """A console whose lower end several parts share, one below the other: a grid's overview, a training's bar.

    rich has one live display for a console; here whatever is shown is a part of that one.
    """

    _parts: tuple[RenderableType, ...] = ()
    _display: Live | None = None

    @contextmanager
    def show(self, part: RenderableType) -> Iterator[None]:
        """Keep `part` on the screen, below what is shown already; nothing where this is no terminal."""
        if not self.is_terminal:
            yield
            return
        with ExitStack() as stack:
            if self._display is None:
                self._display = Live(get_renderable=self._shown, console=self, transient=True, refresh_per_second=4)
                stack.callback(setattr, self, "_display", None)
                stack.enter_context(self._display)
            before, self._parts = self._parts, (*self._parts, part)
            self._display.refresh()
            try:
                yield
            finally:
                self._parts = before
                self._display.refresh()

    def _shown(self) -> RenderableType:
        return Group(*self._parts)


class Progress:
    """Steps done, images/s, loss and time left, of one training."""

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
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(label, total=None, note="")
        self._first = self._total = self._images_per_step = 0
        self._started = self._spoke = time.monotonic()
        self._note = ""
        self._shown = ExitStack()

    def __enter__(self) -> Progress:
        self._shown.enter_context(
            self._console.show(self._bar) if isinstance(self._console, LiveConsole) else self._bar
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def start(self, total: int, done: int, images_per_step: int) -> None:
        """`total` steps in all, of which `done` are behind a resumed run."""
        self._first, self._total, self._images_per_step = done, total, images_per_step
        self._started = self._spoke = time.monotonic()
        self._bar.update(self._task, total=total, completed=done)

    def step(self, done: int, loss: float, rate: float) -> None:
        """`done` steps of the total; `rate` is the learning rate."""
        seconds = time.monotonic() - self._started
        speed = (done - self._first) * self._images_per_step / max(seconds, 1e-9)
        self._note = f"{speed:,.0f} images/s  loss {loss:.4f}  lr {rate:.2g}"
        self._bar.update(self._task, completed=done, note=self._note)

    def epoch(self, done: int, total: int, loss: float) -> None:
        """An epoch has ended; where there is no terminal this is when a line may be printed."""
        now = time.monotonic()
        if self._console.is_terminal or (now - self._spoke < QUIET_SECONDS and done < total):
            return
        self._spoke = now
        behind = self._first / max(self._total, 1) * total  # epochs that an earlier run did
        left = (now - self._started) / max(done - behind, 1e-9) * (total - done)
        line = f"{self._label}: epoch {done}/{total}  {self._note}  {left:.0f} s left"
        print_line(self._console, line)
