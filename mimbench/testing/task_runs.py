"""Runs a task on the CPU, as the harness does, with its encoder's state before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mimbench.contract import (
    DataChoice,
    Dataset,
    Encoder,
    FitReport,
    InputConfig,
    Method,
    Task,
    TaskContext,
    TaskResult,
)
from mimbench.encoders.video_vit import VideoViT, VideoViTConfig
from mimbench.encoders.vit import ViT
from mimbench.encoders.vit_config import ViTConfig
from mimbench.testing.colours import LabelLog, WatchedFeatures


@dataclass(frozen=True)
class Ran:
    """One run of the task under check."""

    result: TaskResult
    chance: float
    before: Mapping[str, Tensor]
    """State of the encoder before the run, and of the method if the task needs one."""
    after: Mapping[str, Tensor]
    log: LabelLog
    depends_on_processes: str
    """What the task says."""
    unshared: Sequence[str]
    """Classes of models that were trained without `shares_batch`."""


def run_task(
    task: Task,
    encoder: Encoder,
    dataset: Dataset,
    folder: Path,
    *,
    log: LabelLog,
    batch: int = 64,
    seed: int = 0,
    method: Method | None = None,
    pretrained_on: DataChoice | None = None,
) -> Ran:
    """Run a task.

    Args:
        folder: an empty folder for features and trainings.
        log: records whether test labels are read early.
        batch: batch size of feature extraction.
        seed: of the task's context.
        method: for tasks that need a reconstruction.
        pretrained_on: as in the task's context.
    """
    # Imported here, since the engine is slow to import and checks of other plugins do not need it.
    from mimbench.engine.fit import fit
    from mimbench.harness.running.features import FrozenFeatures
    from mimbench.store.store import Store

    device, channels = torch.device("cpu"), encoder.in_channels
    per_channel = (
        {} if channels == 3 else {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    )  # the defaults are RGB
    input_config = InputConfig(image_size=encoder.image_size, frames=encoder.frames, **per_channel)
    before = _states(encoder, method)
    task.check(encoder, dataset)
    store = Store(folder)
    features = FrozenFeatures(encoder, input_config, device, {}, store, say=_silent, batch=batch)
    unshared: list[str] = []

    def train(model: Any, *arguments: Any, **options: Any) -> FitReport:
        if not getattr(model, "shares_batch", False):
            unshared.append(type(model).__name__)
        console, workdir = Console(quiet=True), folder / "training"
        return fit(model, *arguments, seed=seed, device=device, workdir=workdir, console=console, **options)

    context = TaskContext(
        seed=seed,
        device=device,
        workdir=store.work("task"),
        input=input_config,
        fit=log.watched(train, "training"),
        features=WatchedFeatures(features, log),
        say=_silent,
        method=method,
        pretrained_on=pretrained_on,
    )
    with log.listening():
        result = task.run(encoder, dataset, context)
    depends = task.depends_on_processes(encoder, dataset)
    return Ran(result, task.chance(dataset), before, _states(encoder, method), log, depends, unshared)


def build_untrained(image_size: int, channels: int, seed: int = 0, frames: int = 1) -> Encoder:
    """A small ViT with fresh weights; of clips, if there are several frames."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        patch_size = next(size for size in (4, 3, 2, 1) if image_size % size == 0)
        if frames > 1:
            of_clips = VideoViTConfig(patch_size=patch_size, tubelet=1, embed_dim=16, depth=2, num_heads=2)
            return VideoViT(of_clips, image_size=image_size, in_channels=channels, frames=frames)
        config = ViTConfig(patch_size=patch_size, embed_dim=16, depth=2, num_heads=2)
        return ViT(config, image_size=image_size, in_channels=channels)


def _states(encoder: Encoder, method: Method | None) -> dict[str, Tensor]:
    state = dict(encoder.state_dict())
    if method is not None:
        state |= {f"method.{name}": value for name, value in method.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _silent(text: str) -> None:
    return
