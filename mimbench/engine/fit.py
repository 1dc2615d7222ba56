"""Training anything that has a `training_step`, with mmengine's Runner built from live objects."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.dist import all_reduce, barrier
from mmengine.optim import OptimWrapper
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mimbench.advice import describe_error
from mimbench.contract import FitReport, TrainConfig
from mimbench.distributed import get_world_size
from mimbench.engine.adapter import Bf16OptimWrapper, MinimalRunner, RunnerModel, release_run
from mimbench.engine.device import peak_memory, pick_precision, reset_peak_memory
from mimbench.engine.hooks import EpochHook, HistoryHook, StepHook
from mimbench.engine.loop import WholeStepLoop
from mimbench.engine.progress import Progress
from mimbench.engine.resume import TrainingStates
from mimbench.engine.stopping import StopRequest, stop_when_convenient
from mimbench.errors import InputError, Interrupted
from mimbench.optim import Schedule, build_optimizer, decay_rules
from mimbench.seeds import mmengine_seed

READ_EVERY = {"cpu": 1, "cuda": 20}
"""Micro-batches between two looks at the loss."""


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
    identity: str = "",
    epochs: int | None = None,
    after_epoch: Mapping[int, Callable[[FitReport], None]] | None = None,
) -> FitReport:
    """Train `model` (a Trainable) in place, going on from `workdir` if an earlier run was interrupted there.

    The loader yields micro-batches: batch_size / accumulate / world size images each. An epoch has as many as fill
    whole optimizer steps. options: the table that `config` comes from, as a person would --set it, e.g. "task.train".

    identity: what tells this training from all others; the state of another one in `workdir` is not used.

    epochs: stop after so many of the schedule's; None: train all of them. after_epoch: called on all ranks, with what
    the training took so far, when so many epochs are done, and before the state of that epoch is saved.

    Raises:
        InputError: the loader has less than one step; `workdir` holds the state of another model.
        RunError: the loss or a weight is not finite; the last good state stays in `workdir`.
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived; the state after the last complete step is in `workdir`.
    """
    if len(loader) < config.accumulate:
        raise InputError(
            f"{label}: a batch of {config.batch_size} needs more than the {images_per_epoch} training images; "
            f"lower {options}.batch_size"
        )
    precision = pick_precision(config, device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    adapter = RunnerModel(model.to(device), device)
    optimizer = build_optimizer(model, config, **decay_rules(model))
    schedule = Schedule(config, steps_per_epoch=len(loader) // config.accumulate)
    every = READ_EVERY.get(device.type, 1)
    run = f"mimbench-{uuid.uuid4().hex}"
    reset_peak_memory(device)
    with Progress(console, label) as progress, stop_when_convenient() as request:
        history = HistoryHook(
            adapter,
            progress,
            images_per_step=config.micro_batch(1),
            every=every,
            accumulate=config.accumulate,
            label=label,
            advice=_advice(config, options, precision),
            last_saved=lambda: states.last_saved(),
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

        states = TrainingStates(label, workdir, adapter, optimizer, history, schedule, config, console, identity)

        def after_step(iteration: int) -> None:
            step = iteration // config.accumulate
            done, within = divmod(step, schedule.steps_per_epoch)
            number = _agreed(request, device, compare=not within or step % every == 0)
            if number:
                raise _stopped(number, states, history, iteration)
            if not within and (done % config.checkpoint_every == 0 or done == runner.max_epochs):
                states.save(iteration)

        runner = MinimalRunner(
            device=device,
            restore=lambda: states.restore(runner),
            model=adapter,
            work_dir=str(workdir),
            train_dataloader=loader,
            train_cfg={
                "type": WholeStepLoop,
                "max_epochs": config.epochs if epochs is None else epochs,
                "accumulate": config.accumulate,
                "after_step": after_step,
            },
            optim_wrapper=_optim_wrapper(optimizer, config, precision, device),
            launcher="pytorch" if get_world_size() > 1 else "none",
            default_hooks=dict.fromkeys(("logger", "param_scheduler", "timer", "runtime_info", "checkpoint")),
            custom_hooks=[
                StepHook(adapter, schedule, seed, config.accumulate),
                history,
                EpochHook(after_epoch or {}, report),
            ],
            visualizer=_visualizer(config, workdir),
            randomness={"seed": mmengine_seed(seed)},
            log_level="ERROR",
            experiment_name=run,
            cfg={"compile": config.compile},
        )
        try:
            runner.train()
            return report()
        except Interrupted as stop:
            if str(stop):
                raise
            raise Interrupted(stop.signal, f"{label}: {states.left_behind()}") from None
        finally:
            runner.visualizer.close()
            release_run(run)


def _stopped(number: int, states: TrainingStates, history: HistoryHook, iteration: int) -> Interrupted:
    """Save the state, and return what ends the training. All ranks call it."""
    history.check_weights("when it was stopped")
    where = states.describe(iteration)
    try:
        states.save(iteration)
        kept = f"saved {where}"
    except (OSError, RuntimeError) as error:  # a full disk
        kept = f"stopped {where}, which cannot be saved ({describe_error(error)}); {states.left_behind()}"
    barrier()  # whoever ends first makes torchrun end the others, which may still be writing
    return Interrupted(number, f"{states.label}: {kept}")


def _agreed(request: StopRequest, device: torch.device, *, compare: bool) -> int:
    """The number of a signal that has reached any rank, or 0. compare: ask all ranks, which makes them wait."""
    if get_world_size() == 1:
        return request.signal
    if not compare:
        return 0
    number = torch.tensor(request.signal, device=device)
    all_reduce(number, "max")
    return int(number)


def _advice(config: TrainConfig, options: str, precision: str) -> str:
    """What may keep a loss finite, by the names of the options that `config` comes from."""
    lower = f"Lower {options}.base_lr (it is {config.base_lr:g})"
    if not options.endswith("train"):  # a plugin's own few options, with neither warmup nor precision
        return lower
    ways = [lower, f"raise {options}.schedule.warmup_epochs"]
    ways += [f"set {options}.precision=fp32"] if precision != "fp32" else []
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _optim_wrapper(
    optimizer: torch.optim.Optimizer, config: TrainConfig, precision: str, device: torch.device
) -> OptimWrapper:
    clip = {"max_norm": config.clip_grad} if config.clip_grad else None
    options = {"optimizer": optimizer, "accumulative_counts": config.accumulate, "clip_grad": clip}
    return Bf16OptimWrapper(device.type, **options) if precision == "bf16" else OptimWrapper(**options)


def _visualizer(config: TrainConfig, workdir: Path) -> dict:
    backends = [{"type": "TensorboardVisBackend"}] if config.tensorboard else []
    return {"type": "Visualizer", "vis_backends": backends, "save_dir": str(workdir)}
