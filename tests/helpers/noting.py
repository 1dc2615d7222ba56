"""A model that notes what the engine does to it, and a short training of it."""

from __future__ import annotations

import io

import torch
from rich.console import Console
from torch import nn

from mimbench.contract import ArraySplit, InputConfig, StepOutput, TrainConfig
from mimbench.data import training_loader
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.fit import fit

CPU = torch.device("cpu")
INPUT = InputConfig(image_size=8, mean=(0.5,), std=(0.5,))
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SPLIT = ArraySplit(IMAGES, torch.arange(40) % 2, ("even", "odd"))


class Probe(nn.Module):
    """A linear model on noise that notes what the engine did to it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.zeros_(self.linear.bias)
        self.seen, self.progress, self.fail_at, self.loss_at_fail = [], [], None, torch.nan

    def training_step(self, batch, generator) -> StepOutput:
        images, _ = batch
        noise = torch.rand(len(images), 64, generator=generator) + torch.rand(1)
        loss = (self.linear(images.flatten(1) / 255 * noise) - 1).pow(2).mean()
        self.seen.append((round(float(images.float().mean()), 4), round(float(noise.sum()), 3)))
        if self.fail_at == len(self.seen):
            loss = loss * self.loss_at_fail
        return StepOutput(loss, {"a_loss_that_is_only_shown": loss.detach() * 1000})

    def after_step(self, progress: float) -> None:
        self.progress.append(progress)


def train(
    model,
    workdir,
    *,
    epochs=3,
    seed=5,
    batch_size=8,
    accumulate=1,
    table="task.train",
    until=None,
    after=None,
    identity="",
    split=SPLIT,
    monitoring=None,
    **options,
):
    """Train on the images of `split`, shared by all processes, with a checkpoint per epoch.

    Returns the report and what was printed.
    """
    options.setdefault("base_lr", 1e-2)
    config = TrainConfig(
        epochs=None if "steps" in options else epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        **{"checkpoint_every": 1, **options},
    )
    ranks = {"rank": get_rank(), "world_size": get_world_size()}
    local = batch_size // accumulate // get_world_size()
    loader = training_loader(split, INPUT, batch_size=local, seed=seed, device=CPU, **ranks)
    out = io.StringIO()
    report = fit(
        model,
        loader,
        config,
        label="probe",
        images_per_epoch=len(split),
        options=table,
        seed=seed,
        device=CPU,
        workdir=workdir,
        console=Console(file=out),
        identity=identity,
        end=until,
        call_after=after,
        monitoring=monitoring,
    )
    return report, out.getvalue()
