"""What a person sees of a training: its bar beneath what is shown already, and the time that is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from mimbench.engine.progress import Progress
from mimbench.store.progress import PROGRESS, read_progress


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


def test_the_bar_shows_the_epoch_and_labels_the_time_that_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("mimbench.engine.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    display = Live(Text(""), console=console, transient=True, auto_refresh=False)
    with display, Progress(console, "x") as progress:
        progress.start(total=40, done=0, images_per_step=8, unit="epoch", units=4)
        now[0] = 65.0
        progress.step(10, 0.5, 0.1)
        out.truncate(out.seek(0))
        display.refresh()
        shown = Text.from_ansi(out.getvalue()).plain
    assert "epoch 2/4" in shown
    assert "3 min left" in shown


def test_the_note_holds_a_curve_of_bounded_length_with_the_mean_of_the_losses(tmp_path, monkeypatch):
    monkeypatch.setattr("mimbench.engine.progress.NOTE_SECONDS", 1e9)  # one at the start, one at the end
    progress = Progress(Console(file=io.StringIO()), "x", tmp_path / PROGRESS)
    progress.start(total=6400, done=0, images_per_step=1, unit="step", units=6400)
    for step in range(1, 6401):
        progress.step(step, step / 100, 0.1, {"accuracy": 0.5})
    note = read_progress(tmp_path / PROGRESS)
    assert note is not None
    assert (note.done, note.total, note.unit, note.logs) == (6400, 6400, "step", {"accuracy": 0.5})
    assert len(note.loss) == 100  # 6400 = 100 * 64
    assert note.loss[0] == pytest.approx((64.0, sum(range(1, 65)) / 64 / 100))


def test_a_resumed_training_continues_the_curve_of_its_note(tmp_path):
    first = Progress(Console(file=io.StringIO()), "x", tmp_path / PROGRESS)
    first.start(total=4, done=0, images_per_step=1, units=4)
    for step in (1, 2, 3):
        first._last_note = float("-inf")
        first.step(step, 1 / step, 0.1)
    second = Progress(Console(file=io.StringIO()), "x", tmp_path / PROGRESS)
    second.start(total=4, done=2, images_per_step=1, units=4)  # the third step was not saved
    second.step(3, 0.25, 0.1)
    second.step(4, 0.125, 0.1)
    note = read_progress(tmp_path / PROGRESS)
    assert note is not None
    assert list(note.loss) == [(1.0, 1.0), (2.0, 0.5), (3.0, 0.25), (4.0, 0.125)]
