"""What a person sees of a training: its bar beneath what is shown already, and the time that is left."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from mimbench.engine.progress import LiveConsole, Progress


def test_a_training_and_the_overview_share_the_screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    screen = LiveConsole(file=out, force_terminal=True, width=120)
    with screen.show(Text("the overview")), Progress(screen, "a training") as progress:
        progress.start(10, 0, 1)
        progress.step(5, 0.25, 0.1)
        shown = screen._shown()
        plain = Console(file=io.StringIO(), width=120)
        plain.print(shown)
        lines = plain.file.getvalue().splitlines()
    assert lines[0] == "the overview"
    assert "a training" in lines[1]
    assert "loss 0.2500" in lines[1]
    assert screen._parts == ()
    assert "the overview" in out.getvalue()


def test_a_resumed_training_counts_only_its_own_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mimbench.engine.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200), "x")
    progress.start(total=100, done=80, images_per_step=1)
    now[0] = 30.0
    progress.step(90, 0.5, 0.1)
    progress.epoch(9, 10, 0.5)
    assert "epoch 9/10" in out.getvalue()
    assert "30 s left" in out.getvalue()
