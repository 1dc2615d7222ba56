"""Micro-batches found by trying."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimbench.contract import PlannedStep, StepOutput, TrainConfig
from mimbench.engine import trial
from mimbench.engine.trial import largest_that_runs, try_steps

CPU = torch.device("cpu")


def limited(most, error):
    tried = []

    def run(images):
        tried.append(images)
        if images > most:
            raise error

    return run, tried


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), MemoryError()],
)
def test_the_first_that_runs_is_taken(error):
    run, tried = limited(100, error)
    assert largest_that_runs(run, [512, 256, 128, 64, 32], CPU) == 64
    assert tried == [512, 256, 128, 64]
    assert largest_that_runs(limited(1, error)[0], [4, 2], CPU) is None


def test_the_peak_of_a_trial_that_ran_out_of_memory_is_not_that_of_the_next(monkeypatch):
    peak = [0]

    def run(images):
        peak[0] = max(peak[0], images)
        if peak[0] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory: they leave almost nothing")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(trial, "_on_any_rank", lambda value, device: value)
    assert largest_that_runs(run, [512, 256, 64, 32], torch.device("cuda")) == 64


def test_other_errors_are_raised():
    with pytest.raises(ValueError, match="a step that is wrong"):
        largest_that_runs(limited(1, ValueError("a step that is wrong"))[0], [4, 2], CPU)


def test_a_trial_makes_whole_steps_and_leaves_random_numbers_as_they_were():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.images, self.updates = nn.Linear(3, 1), [], 0

        def training_step(self, batch, generator):
            self.images.append(len(batch[0]))
            return StepOutput(nn.functional.dropout(self.layer(batch[0])).square().mean())

        def after_step(self, progress):
            self.updates += 1

    model = Model()
    planned = PlannedStep(
        model, lambda images: (torch.ones(images, 3),), TrainConfig(epochs=1, batch_size=8, base_lr=1)
    )
    before = torch.random.get_rng_state()
    try_steps(lambda: planned, {}, CPU, 4)
    assert (model.images, model.updates) == ([4, 4, 4, 4], 2)
    assert torch.equal(torch.random.get_rng_state(), before)
