"""The engine's `fit` for a pretraining, for what a method fits beforehand, and for a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mimbench.contract import FitReport, TrainConfig
from mimbench.data import training_loader
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.fit import fit
from mimbench.harness.planning.cells import Pretraining


def train_on_images(
    model: nn.Module,
    wanted: Pretraining,
    config: TrainConfig,
    *,
    label: str,
    options: str,
    workdir: Path,
    device: torch.device,
    console: Console,
    identity: str,
    epochs: int | None = None,
    after_epoch: Mapping[int, Callable[[FitReport], None]] | None = None,
) -> FitReport:
    """Train `model`, a Trainable that takes (uint8 images, labels), on the training split; resumes from `workdir`.

    options: the table that `config` comes from; identity, epochs, after_epoch: all as `fit` has them.
    """
    split, world = wanted.images(), get_world_size()
    loader = training_loader(
        split,
        wanted.recipe.input,
        batch_size=config.micro_batch(world),
        seed=wanted.seed,
        workers=wanted.recipe.pretrain.workers,
        rank=get_rank(),
        world_size=world,
        device=device,
    )
    return fit(
        model,
        loader,
        config,
        label=label,
        images_per_epoch=len(split),
        options=options,
        seed=wanted.seed,
        device=device,
        workdir=workdir,
        console=console,
        identity=identity,
        epochs=epochs,
        after_epoch=after_epoch,
    )


class TaskTraining:
    """`fit` for one task. A task may train several models: each has a folder, in which an interrupted one goes on."""

    def __init__(self, folder: Path, identity: str, *, seed: int, device: torch.device, console: Console) -> None:
        self.folder, self.identity, self._number = folder, identity, 0
        self.seed, self.device, self.console = seed, device, console

    def __call__(
        self,
        model: Any,
        loader: DataLoader,
        config: TrainConfig,
        *,
        label: str,
        images_per_epoch: int,
        options: str = "task.train",
    ) -> FitReport:
        self._number += 1
        return fit(
            model,
            loader,
            config,
            label=label,
            images_per_epoch=images_per_epoch,
            options=options,
            seed=self.seed,
            device=self.device,
            workdir=self.folder / str(self._number),
            console=self.console,
            identity=f"{self.identity}/{self._number}",
        )
