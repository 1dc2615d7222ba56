"""Monitors: they measure at the steps that are asked for, and change no bit of the training."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch

from helpers.noting import CPU, Probe, train
from mimbench.engine.monitoring import Monitoring, undisturbed
from mimbench.errors import RunError


def restless(model, seconds: float = 0.0, noted=None):
    """A measurement that draws from every source of random numbers, and notes in which state it was called."""

    def measure() -> dict[str, float]:
        torch.manual_seed(1)
        torch.rand(3), np.random.seed(1), random.seed(1)
        time.sleep(seconds)
        if noted is not None:
            noted.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return {"weight": float(model.linear.weight.detach().norm())}

    return measure


class Drawing(Probe):
    """Draws from the shared generators between seeded places, as careless code of a method may."""

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.seen.append((random.random(), float(np.random.rand()), float(torch.rand(1))))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_watched_training_has_the_weights_of_one_that_is_not(tmp_path, precision):
    plain, watched, noted = Drawing(), Drawing(), []
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    alone, _ = train(plain, tmp_path / "plain", precision=precision)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    monitoring = Monitoring(restless(watched, noted=noted), every=2)
    report, _ = train(watched, tmp_path / "watched", precision=precision, monitoring=monitoring)
    assert torch.equal(plain.linear.weight, watched.linear.weight)
    assert plain.seen == watched.seen
    assert (report.loss, report.logs) == (alone.loss, alone.logs)
    assert noted == [(False, False)] * 9
    assert alone.monitored == {}


def test_the_curve_has_the_values_before_during_and_after_the_training(tmp_path):
    model = Probe()
    report, said = train(model, tmp_path, monitoring=Monitoring(restless(model), every=5))
    assert [at for at, _ in report.monitored["weight"]] == [0, 1, 2, 3]
    assert report.monitored["weight"][0][1] == pytest.approx(0.1 * 16)
    last = float(model.linear.weight.detach().norm())
    assert report.monitored["weight"][-1][1] == last
    assert f"probe: after 3 epochs:  weight {last:.4g}" in said


def test_a_resumed_training_goes_on_with_the_curve_and_the_same_weights(tmp_path):
    whole, broken, resumed, unwatched = Probe(), Probe(), Probe(), Probe()
    expected, _ = train(whole, tmp_path / "whole", monitoring=Monitoring(restless(whole), every=2))
    broken.fail_at = 8
    with pytest.raises(RunError):
        train(broken, tmp_path / "broken", monitoring=Monitoring(restless(broken), every=2))
    report, _ = train(resumed, tmp_path / "broken", monitoring=Monitoring(restless(resumed), every=2))
    assert torch.equal(whole.linear.weight, resumed.linear.weight)
    assert report.monitored == expected.monitored
    assert report.loss == expected.loss
    unchanged, _ = train(unwatched, tmp_path / "broken")  # without monitors, what was measured is kept
    assert unchanged.monitored == expected.monitored


def test_a_checkpoint_on_the_way_has_the_curve_so_far(tmp_path):
    model, reports = Probe(), []
    train(model, tmp_path, monitoring=Monitoring(restless(model), every=5), after={2: reports.append})
    assert [at for at, _ in reports[0].monitored["weight"]] == [0, 1, 2]


def test_monitor_seconds_are_no_training_seconds(tmp_path):
    model = Probe()
    report, _ = train(model, tmp_path, monitoring=Monitoring(restless(model, seconds=0.2), every=5))
    assert report.monitor_seconds >= 0.8
    before, _ = train(Probe(), tmp_path / "before")
    assert report.seconds < before.seconds + 0.7


def test_random_numbers_go_on_even_if_a_measurement_fails():
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = (random.random(), np.random.rand(), float(torch.rand(1)))
    torch.manual_seed(3), np.random.seed(3), random.seed(3)

    def fail() -> None:
        with undisturbed(CPU):
            torch.manual_seed(1), np.random.seed(1), random.seed(1)
            raise ValueError("measured")

    with pytest.raises(ValueError, match="measured"):
        fail()
    assert (random.random(), np.random.rand(), float(torch.rand(1))) == expected
