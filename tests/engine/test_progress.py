"""What a person sees of a training: its bar beneath what is shown already, and the time that is left."""

from __future__ import annotations

import io

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mimbench.engine.progress import Progress


def test_a_training_is_shown_below_the_overview(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()

    def frame(display: Live) -> list[str]:
        """The lines that a refresh of the terminal writes."""
        out.truncate(out.seek(0))
        display.refresh()
        return Text.from_ansi(out.getvalue()).plain.splitlines()

    console = Console(file=out, force_terminal=True, width=120)
    with Live(Text("the overview"), console=console, transient=True, auto_refresh=False) as overview:
        with Progress(console, "a training") as progress:
            progress.start(10, 0, 1)
            progress.step(5, 0.25, 0.1)
            first, second = frame(overview)
        assert "the overview" in first
        assert "a training" in second
        assert "loss 0.2500" in second
        (only,) = frame(overview)
        assert "the overview" in only


def test_a_resumed_training_counts_only_its_own_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mimbench.engine.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200), "x")
    progress.start(total=100, done=80, images_per_step=1)
    now[0] = 30.0
    progress.step(90, 0.5, 0.1)
    progress.line("epoch", 9, 10)
    assert "epoch 9/10" in out.getvalue()
    assert "30 s left" in out.getvalue()
