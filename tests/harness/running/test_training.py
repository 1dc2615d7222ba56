"""Several models that one task trains."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from mimbench.contract import ArraySplit, InputConfig, StepOutput, TrainConfig
from mimbench.data import training_loader
from mimbench.harness.running.training import TaskTraining

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=4, mean=(0.5,), std=(0.5,))
SPLIT = ArraySplit(torch.full((8, 1, 4, 4), 100, dtype=torch.uint8), torch.zeros(8, dtype=torch.long), ("one",))


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.steps = 0

    def training_step(self, batch, generator) -> StepOutput:
        self.steps += 1
        return StepOutput((self.weight - 1).pow(2))


class Killed(Weight):
    def training_step(self, batch, generator) -> StepOutput:
        if self.steps == 2:
            raise MemoryError
        return super().training_step(batch, generator)


def run(fit, model, rate):
    config = TrainConfig(epochs=2, batch_size=4, optimizer="sgd", base_lr=rate, checkpoint_every=1)
    loader = training_loader(SPLIT, INPUT, batch_size=4, seed=0, device=CPU)
    fit(model, loader, config, label="weight", images_per_epoch=8)
    return float(model.weight.detach())


def test_each_model_is_trained_and_an_interrupted_one_goes_on(tmp_path):
    def fit(folder, identity="cell"):
        return TaskTraining(folder, identity, seed=0, device=CPU, console=Console(file=io.StringIO()))

    whole = fit(tmp_path / "whole")
    expected = [run(whole, Weight(), rate) for rate in (1.0, 2.0)]
    assert expected[0] != expected[1]
    broken = fit(tmp_path / "work")
    run(broken, Weight(), 1.0)
    with pytest.raises(MemoryError):
        run(broken, Killed(), 2.0)
    models, again = [Weight(), Weight()], fit(tmp_path / "work")
    assert [run(again, model, rate) for model, rate in zip(models, (1.0, 2.0), strict=True)] == expected
    assert [model.steps for model in models] == [0, 2]
    other = Weight()
    assert run(fit(tmp_path / "work", "another cell"), other, 1.0) == expected[0]
    assert other.steps == 4
