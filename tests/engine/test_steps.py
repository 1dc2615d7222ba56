"""Optimizer steps, schedule and data agree for every combination of size, batch, accumulation and processes."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from rich.console import Console
from torch import nn

from mimbench.contract import ArraySplit, InputConfig, InputError, ScheduleConfig, StepOutput, TrainConfig
from mimbench.data import training_loader
from mimbench.data.pipeline.loading import EpochSampler
from mimbench.engine.fit import fit
from mimbench.optim import Schedule

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=4, mean=(0.5,), std=(0.5,))


class Mean(nn.Module):
    """A linear model of each image's mean, whose loss is linear in the images: micro-batches add up exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.images, self.progress = [], []

    def training_step(self, batch, generator) -> StepOutput:
        images, _ = batch
        self.images += images[:, 0, 0, 0].tolist()
        return StepOutput((self.weight * images.double().mean((1, 2, 3))).mean())

    def after_step(self, progress: float) -> None:
        self.progress.append(progress)


def train(workdir, size, batch, accumulate, epochs=3, model=None):
    images = torch.arange(size, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    split = ArraySplit(images, torch.zeros(size, dtype=torch.long), ("one",))
    schedule = ScheduleConfig(warmup_epochs=1, min_lr=1e-4)
    config = TrainConfig(
        epochs=epochs, batch_size=batch, accumulate=accumulate, optimizer="sgd", base_lr=0.1, schedule=schedule
    )
    model = model or Mean()
    report = fit(
        model,
        training_loader(split, INPUT, batch_size=config.micro_batch(1), seed=1, device=CPU),
        config,
        label="mean",
        images_per_epoch=size,
        seed=1,
        device=CPU,
        workdir=workdir,
        console=Console(file=io.StringIO()),
    )
    return model, report, config


COMBINATIONS = [
    (size, batch, accumulate)
    for size, batch, accumulate in itertools.product((6, 7, 11, 23), (1, 2, 6), (1, 2, 3, 6))
    if batch % accumulate == 0 and batch <= size
]


@pytest.mark.parametrize(("size", "batch", "accumulate"), COMBINATIONS)
def test_accumulation_changes_neither_the_steps_nor_the_images(tmp_path, monkeypatch, size, batch, accumulate):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD,
        "step",
        lambda self, *a, **k: (rates.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1],
    )
    model, report, config = train(tmp_path / "whole", size, batch, accumulate)
    steps = 3 * (size // batch)
    schedule = Schedule(config, size // batch)
    assert rates == [schedule.lr(index) for index in range(steps)]
    assert model.progress == pytest.approx([(index + 1) / steps for index in range(steps)])
    assert (report.steps, report.images_seen, len(model.images)) == (steps, steps * batch, steps * batch)
    if accumulate > 1:
        at_once, _, _ = train(tmp_path / "at_once", size, batch, 1)
        assert model.images == at_once.images
        torch.testing.assert_close(model.weight, at_once.weight, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("size", "batch"), [(size, batch) for size in (12, 13, 29) for batch in (4, 12)])
def test_processes_share_each_batch(size, batch):
    alone = [pick.indices.tolist() for pick in EpochSampler(size, batch, seed=3)]
    for world, accumulate in itertools.product((1, 2, 4), (1, 2)):
        if batch % (world * accumulate):
            continue
        micro = batch // world // accumulate
        ranks = [list(EpochSampler(size, micro, 3, rank, world)) for rank in range(world)]
        for number, expected in enumerate(alone):
            of_step = range(number * accumulate, (number + 1) * accumulate)
            seen = torch.cat([ranks[rank][index].indices for index in of_step for rank in range(world)])
            assert seen.tolist() == expected


def test_a_batch_that_processes_cannot_share_is_refused():
    config = TrainConfig(epochs=1, batch_size=12, accumulate=2, base_lr=0.1)
    for processes in (1, 2, 3, 6):
        config.require_processes(processes, "pretrain")
    with pytest.raises(InputError, match=r"pretrain.batch_size 12 cannot be shared equally by 4 processes x 2 .*of 8"):
        config.require_processes(4, "pretrain")
