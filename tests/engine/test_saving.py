"""States by minutes, trainings that get less time than an epoch, and trainings that another process has taken over."""

from __future__ import annotations

import shutil
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from helpers.noting import Probe, train
from mimbench.engine import saving
from mimbench.errors import Interrupted, LeaseLost, RunError
from mimbench.leases import confirm_leases, hold_lease


class Signalled(Probe):
    """Gets a signal within its n-th training step."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.number = at, number

    def training_step(self, batch, generator):
        if len(self.seen) + 1 == self.at:
            signal.raise_signal(self.number)
        return super().training_step(batch, generator)


class Slow(Probe):
    """Its steps take 25 seconds of a clock that the engine reads."""

    def __init__(self, monkeypatch) -> None:
        super().__init__()
        self.now = 0.0
        monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: self.now))

    def training_step(self, batch, generator):
        self.now += 25.0
        return super().training_step(batch, generator)


@pytest.mark.parametrize(("minutes", "saved"), [(1.0, 12), (2.0, 10), (None, 0), (10.0, 0)])
def test_states_are_saved_by_minutes_between_two_steps(tmp_path, monkeypatch, minutes, saved):
    unbroken, slow, resumed = Probe(), Slow(monkeypatch), Probe()
    train(unbroken, tmp_path / "whole")
    slow.fail_at = 14
    rare = {"checkpoint_every": 1000, "checkpoint_minutes": minutes}
    with pytest.raises(RunError):
        train(slow, tmp_path / "work", **rare)
    train(resumed, tmp_path / "work", **rare)
    assert resumed.seen == unbroken.seen[saved:]
    assert torch.equal(resumed.linear.weight, unbroken.linear.weight)


def test_a_state_by_steps_puts_off_the_next_by_minutes(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    slow.fail_at = 9
    with pytest.raises(RunError):
        train(slow, tmp_path, checkpoint_every=None, checkpoint_steps=4, checkpoint_minutes=1.5)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["step_4.pth", "step_8.pth"]


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGALRM])
def test_jobs_that_are_shorter_than_an_epoch_finish_a_training(tmp_path, steps, number):
    unbroken = Probe()
    whole, _ = train(unbroken, tmp_path / "whole")
    jobs = 0
    report = None
    while report is None:
        job = Signalled(steps, number)
        jobs += 1
        with suppress(Interrupted):
            report, _ = train(job, tmp_path / "work", checkpoint_every=1000)
    assert jobs == 15 // steps + 1
    assert torch.equal(job.linear.weight, unbroken.linear.weight)
    assert report.loss == whole.loss
    assert (report.steps, report.images_seen) == (whole.steps, whole.images_seen)


class TakenOver(Probe):
    """Loses its lease within its n-th step, which the thread that gives signs of life notices."""

    def __init__(self, lease, at: int) -> None:
        super().__init__()
        self.lease, self.at = lease, at

    def training_step(self, batch, generator):
        if len(self.seen) + 1 == self.at:
            shutil.rmtree(self.lease)
            with suppress(LeaseLost):
                confirm_leases()
        return super().training_step(batch, generator)


def test_a_training_that_another_process_has_taken_over_stops_and_saves_nothing(tmp_path):
    model = TakenOver(tmp_path / "k.lease", 8)
    with hold_lease(tmp_path / "k", "pretraining"), pytest.raises(LeaseLost, match="pretraining: stopped, since"):
        train(model, tmp_path / "work")
    assert len(model.seen) == 8
    assert sorted(path.name for path in (tmp_path / "work").glob("*.pth")) == ["step_5.pth"]
