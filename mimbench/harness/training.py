"""Training on the images of a pretraining: what methods, and what they fit beforehand, have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from rich.console import Console

from mimbench.contract import FitReport, TrainConfig
from mimbench.data import training_loader
from mimbench.engine.device import get_rank, get_world_size
from mimbench.engine.fit import fit
from mimbench.harness.cells import Pretraining


def train_on_images(
    model: torch.nn.Module,
    wanted: Pretraining,
    config: TrainConfig,
    *,
    label: str,
    options: str,
    workdir: Path,
    device: torch.device,
    console: Console,
    epochs: int | None = None,
    after_epoch: Mapping[int, Callable[[FitReport], None]] | None = None,
) -> FitReport:
    """Train `model`, a Trainable that takes (uint8 images, labels), on the training split; resumes from `workdir`.

    options: the table that `config` comes from; epochs, after_epoch: all as `fit` has them.
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
        epochs=epochs,
        after_epoch=after_epoch,
    )
