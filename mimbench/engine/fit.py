"""Training anything that has a `training_step`, with mmengine's Runner built from live objects."""

from __future__ import annotations

import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mimbench.contract import FitReport, TrainConfig
from mimbench.engine.adapter import Adapter, Bf16OptimWrapper, LiveRunner
from mimbench.engine.device import get_world_size, peak_memory, pick_precision, reset_peak_memory
from mimbench.engine.hooks import EpochHook, HistoryHook, StepHook, checkpoint_hook
from mimbench.engine.progress import Progress
from mimbench.errors import InputError
from mimbench.optim import Schedule, build_optimizer, decay_rules

READ_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two looks at the loss."""


def fit(
    model: nn.Module,
    loader: DataLoader,
    config: TrainConfig,
    *,
    label: str,
    images_per_epoch: int,
    options: str = "task.train",
    seed: int,
    device: torch.device,
    workdir: Path,
    console: Console,
    epochs: int | None = None,
    after_epoch: Mapping[int, Callable[[FitReport], None]] | None = None,
) -> FitReport:
    """Train `model` (a Trainable) in place, resuming from `workdir` where an earlier run stopped.

    The loader yields micro-batches: batch_size / accumulate / world size images each. options: the table that `config`
    comes from, as a person would --set it, e.g. "task.train".

    epochs: stop after so many of the schedule's; None: train all of them. after_epoch: called on all ranks, with what
    it took so far, when so many epochs are done, and before a killed run could be taken up from there.

    Raises:
        InputError: the loader is empty.
        RunError: the loss or a weight is not finite; the last good checkpoint stays in `workdir`.
    """
    if len(loader) < config.accumulate:
        raise InputError(
            f"{label}: a batch of {config.batch_size} needs more than the {images_per_epoch} training images; "
            f"lower {options}.batch_size"
        )
    precision = pick_precision(config, device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    adapter = Adapter(model.to(device), device)
    optimizer = build_optimizer(model, config, **decay_rules(model))
    schedule = Schedule(config, steps_per_epoch=len(loader) // config.accumulate)
    iterations = config.epochs * len(loader)
    resume_from = _last_checkpoint(workdir)
    reset_peak_memory(device)
    with Progress(console, label) as progress:
        history = HistoryHook(
            adapter,
            progress,
            images_per_step=config.micro_batch(1),
            every=READ_EVERY.get(device.type, 1),
            label=label,
            advice=_advice(config, options, precision),
        )

        def report() -> FitReport:
            return FitReport(
                loss=list(history.loss),
                seconds=history.seconds,
                images_seen=runner.iter * config.micro_batch(1),
                steps=runner.iter // config.accumulate,
                peak_memory=peak_memory(device),
                precision=precision,
            )

        runner = LiveRunner(
            device=device,
            model=adapter,
            work_dir=str(workdir),
            train_dataloader=loader,
            train_cfg={"by_epoch": True, "max_epochs": config.epochs if epochs is None else epochs},
            optim_wrapper=_optim_wrapper(optimizer, config, precision, device),
            load_from=resume_from,
            resume=resume_from is not None,
            launcher="pytorch" if get_world_size() > 1 else "none",
            default_hooks={"logger": None, "param_scheduler": None, "timer": None, "runtime_info": None}
            | {"checkpoint": checkpoint_hook(config.checkpoint_every)},
            custom_hooks=[
                StepHook(adapter, schedule, seed, config.accumulate, iterations),
                history,
                EpochHook(after_epoch or {}, report),
            ],
            visualizer=_visualizer(config, workdir),
            randomness={"seed": seed % 2**31},
            log_level="ERROR",
            experiment_name=f"mimbench-{uuid.uuid4().hex}",
            cfg={"compile": config.compile},
        )
        runner.train()
        return report()


def _advice(config: TrainConfig, options: str, precision: str) -> str:
    """What may keep a loss finite, by the names of the options that `config` comes from."""
    lower = f"Lower {options}.base_lr (it is {config.base_lr:g})"
    if not options.endswith("train"):  # a plugin's own few options, with neither warmup nor precision
        return lower
    ways = [lower, f"raise {options}.schedule.warmup_epochs"]
    ways += [f"set {options}.precision=fp32"] if precision != "fp32" else []
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def epochs_done(workdir: Path) -> int:
    """After how many epochs a training in `workdir` would be taken up; 0: it would begin."""
    path = _last_checkpoint(workdir)
    return int(Path(path).stem.removeprefix("epoch_")) if path else 0


def _last_checkpoint(workdir: Path) -> str | None:
    """What an earlier run left to go on from; found by name, since the folder may have been moved.

    Raises:
        InputError: it is damaged.
    """
    note = workdir / "last_checkpoint"
    path = workdir / Path(note.read_text().strip()).name if note.is_file() else workdir
    if not path.is_file():
        return None
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}, which this training would go on from, is damaged; delete {workdir} to start it anew")
    return str(path)


def _optim_wrapper(
    optimizer: torch.optim.Optimizer, config: TrainConfig, precision: str, device: torch.device
) -> OptimWrapper:
    clip = {"max_norm": config.clip_grad} if config.clip_grad else None
    options = {"optimizer": optimizer, "accumulative_counts": config.accumulate, "clip_grad": clip}
    return Bf16OptimWrapper(device.type, **options) if precision == "bf16" else OptimWrapper(**options)


def _visualizer(config: TrainConfig, workdir: Path) -> dict:
    backends = [{"type": "TensorboardVisBackend"}] if config.tensorboard else []
    return {"type": "Visualizer", "vis_backends": backends, "save_dir": str(workdir)}
