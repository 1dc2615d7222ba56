"""The engine's `fit`, with the arguments that a pretraining, a stage or a task have in common filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mimbench.contract import FitReport, TrainConfig
from mimbench.data import Views, decoding_of, training_loader
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.fit import fit
from mimbench.engine.monitoring import Monitoring
from mimbench.harness.planning.cells import Pretraining


def fit_on_images(
    model: nn.Module,
    pretraining: Pretraining,
    config: TrainConfig,
    *,
    label: str,
    options: str,
    workdir: Path,
    device: torch.device,
    console: Console,
    identity: str,
    views: Views = (),
    end: int | None = None,
    call_after: Mapping[int, Callable[[FitReport], None]] | None = None,
    monitoring: Monitoring | None = None,
    tracks: Path | None = None,
) -> FitReport:
    """Train `model` on the training images of a pretraining; resumes from `workdir`.

    Args:
        model: a Trainable; its batches are (uint8 images [B, C, h, w], int64 labels [B]).
        pretraining: its dataset, input, seed and number of workers are used.
        views: how each view of an image is augmented; (): one, as the pretraining's [input].

    The other arguments are those of `mimbench.engine.fit.fit`.
    """
    split, world_size = pretraining.images(), get_world_size()
    loader = training_loader(
        split,
        views or pretraining.recipe.input,
        batch_size=config.micro_batch(world_size),
        seed=pretraining.seed,
        workers=pretraining.recipe.pretrain.workers,
        rank=get_rank(),
        world_size=world_size,
        device=device,
        decoding=decoding_of(pretraining.recipe.data),
    )
    return fit(
        model,
        loader,
        config,
        label=label,
        images_per_epoch=len(split),
        options=options,
        seed=pretraining.seed,
        device=device,
        workdir=workdir,
        console=console,
        identity=identity,
        end=end,
        call_after=call_after,
        monitoring=monitoring,
        tracks=tracks,
    )


class TaskTraining:
    """`fit` as one task calls it. A task may train several models, always in the same order.

    Each model has a numbered folder, so that an interrupted task resumes each of them.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        *,
        seed: int,
        device: torch.device,
        console: Console,
        tracks: Path | None = None,
    ) -> None:
        self.folder, self.identity, self._models, self.tracks = folder, identity, 0, tracks
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
        self._models += 1
        return fit(
            model,
            loader,
            config,
            label=label,
            images_per_epoch=images_per_epoch,
            options=options,
            seed=self.seed,
            device=self.device,
            workdir=self.folder / str(self._models),
            console=self.console,
            identity=f"{self.identity}/{self._models}",
            tracks=self.tracks,
        )
