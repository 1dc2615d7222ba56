"""`fit` trains any Trainable with mmengine's Runner, which is built from objects instead of a config file."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.dist import barrier
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from mimbench.advice import describe_error
from mimbench.contract import FitReport, TrainConfig
from mimbench.distributed import get_rank, get_world_size
from mimbench.engine.acceleration import (
    accelerated,
    choose_acceleration,
    has_dropout,
    matrix_precision,
    set_channels_last,
)
from mimbench.engine.adapter import MinimalRunner, RunnerModel, release_run
from mimbench.engine.device import peak_memory, pick_precision, reset_peak_memory
from mimbench.engine.hooks import HistoryHook, StepHook
from mimbench.engine.loop import WholeStepLoop
from mimbench.engine.monitoring import MonitorHook, Monitoring
from mimbench.engine.progress import Progress, print_line
from mimbench.engine.resume import TrainingStates
from mimbench.engine.saving import SavingPlan
from mimbench.engine.sharding import copy_to_split, describe_use, gather_weights, split
from mimbench.engine.sharing import shared_parts, shares_batch
from mimbench.engine.stopping import stop_when_convenient
from mimbench.engine.tracking import describe_visualizer
from mimbench.engine.update import FirstUpdate, build_update
from mimbench.errors import InputError, Interrupted, RunError
from mimbench.optim import Schedule, build_optimizer, decay_rules
from mimbench.rank_watch import training_together
from mimbench.seeds import mmengine_seed
from mimbench.store.progress import PROGRESS

READ_EVERY = {"cpu": 1, "cuda": 20}
"""Micro-batches between two reads of the loss. A read makes a CUDA device wait."""


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
    end: int | None = None,
    call_after: Mapping[int, Callable[[FitReport], None]] | None = None,
    monitoring: Monitoring | None = None,
    tracks: Path | None = None,
) -> FitReport:
    """Train a model in place. Resumes from `workdir` if an earlier run was interrupted there. All ranks call it.

    Args:
        model: a Trainable.
        loader: yields micro-batches of batch_size / accumulate / world size images. Those at the end of an epoch that
            do not fill an optimizer step are dropped.
        config: optimizer, schedule, precision and so on.
        label: names the training in messages.
        images_per_epoch: for messages.
        options: path of the table that `config` comes from, such as "task.train". Messages advise on its settings.
        seed: each step is seeded from it, the rank and the step number; ranks that share a batch have one seed.
        device: the model is moved there.
        workdir: folder of the training state.
        console: for progress and messages.
        identity: names the training among all others. A state of another identity in `workdir` is not used.
        end: stop after so many epochs of the schedule, or steps if the budget is in steps; None: train all of them.
        call_after: functions by number of epochs (or steps) done. Each is called on all ranks with the report so far,
            before the state at that point is saved. Points that an earlier, interrupted run has passed are left out.
        monitoring: what to measure on the way. Its seconds are stated apart, and its peak memory counts.
        tracks: folder for the files of trackers. Default: one in `workdir`.

    Returns:
        Loss per epoch, and what the training took, interrupted runs included.

    Raises:
        InputError: the loader has less than one step, or `workdir` holds the state of another model.
        RunError: the loss or a weight is not finite. The last good state stays in `workdir`.
        Interrupted: a signal asked to stop (see stopping.py). The state after the last complete step is in `workdir`.
        LeaseLost: another process has taken over this training; its states are left alone.
    """
    if config.auto_batch:
        raise InputError(
            f"{options}.auto_batch: it is for pretrain and task.train of `mimbench run`; set {options}.accumulate"
        )
    if len(loader) < config.accumulate:
        raise InputError(
            f"{label}: a batch of {config.batch_size} needs more than the {images_per_epoch} training images; "
            f"lower {options}.batch_size"
        )
    config.require_several(get_world_size(), options)
    precision, is_split = pick_precision(config, device), config.parallel == "fsdp"
    if config.channels_last:
        set_channels_last(model)
    trained = copy_to_split(model, label) if is_split else model.to(device)
    adapter = RunnerModel(trained, device)
    if is_split:
        split(adapter, device)
    optimizer = build_optimizer(trained, config, **decay_rules(trained))
    schedule = Schedule(config, steps_per_epoch=len(loader) // config.accumulate)
    per_unit = schedule.steps_per_epoch if config.unit == "epoch" else 1
    last_step = schedule.steps if end is None else end * per_unit
    calls = {count * per_unit: function for count, function in (call_after or {}).items()}
    read_every = READ_EVERY.get(device.type, 1)
    run_name = f"mimbench-{uuid.uuid4().hex}"
    choice = choose_acceleration(config, device, last_step * config.accumulate, has_dropout=has_dropout(trained))
    is_shared = shares_batch(trained) and get_world_size() > 1
    reset_peak_memory(device)
    with (
        training_together(),
        Progress(console, label, workdir / PROGRESS if get_rank() == 0 else None) as progress,
        stop_when_convenient() as request,
        matrix_precision(precision, device),
        shared_parts(trained) if is_shared else nullcontext(),
        accelerated(trained, choice, falls_back=config.compile == "auto", label=label, console=console) as describe,
    ):
        history = HistoryHook(
            adapter,
            progress,
            images_per_step=config.micro_batch(1),
            every=read_every,
            accumulate=config.accumulate,
            label=label,
            unit=config.unit,
            advice=_divergence_advice(config, options, precision),
            last_saved=lambda: states.last_saved(),
        )

        def report() -> FitReport:
            loss, logs = history.means(runner.epoch + 1)
            return FitReport(
                loss=loss,
                seconds=history.seconds,
                images_seen=runner.iter * config.micro_batch(1),
                steps=runner.iter // config.accumulate,
                peak_memory=peak_memory(device),
                precision=precision,
                logs=logs,
                compiled=describe(),
                monitored={name: list(points) for name, points in monitors.curves.items()},
                monitor_seconds=monitors.seconds,
            )

        def gather() -> None:
            if is_split:
                gather_weights(trained, model)

        def measure() -> Mapping[str, float]:
            gather()
            return monitoring.measure() if monitoring else {}

        monitors = MonitorHook(
            replace(monitoring, measure=measure) if monitoring else None,
            progress,
            history,
            device,
            steps_per_epoch=schedule.steps_per_epoch,
            last_step=last_step,
        )
        saving = SavingPlan(config, schedule.steps_per_epoch, last_step, request, device)
        states = TrainingStates(
            label, workdir, adapter, optimizer, history, monitors, schedule, config, console, identity
        )

        def after_step(iteration: int) -> None:
            step = iteration // config.accumulate
            is_epoch_end = step % schedule.steps_per_epoch == 0
            is_saved, signal = saving.ask(step, together=is_epoch_end or step % read_every == 0 or step == last_step)
            if (step in calls or is_saved) and not is_epoch_end:  # at the end of an epoch, the hook has checked
                history.check(runner)
            monitors.after_step(runner, step)
            if step in calls:
                gather()
                calls[step](report())
            if signal:
                raise _save_and_interrupt(signal, states, history, iteration)
            if is_saved:
                states.save(iteration)

        first_update = FirstUpdate(adapter, label, console)

        def before_update() -> None:
            first_update.check()
            hook = getattr(trained, "before_update", None)
            if hook:
                hook((runner.iter // config.accumulate) / schedule.steps)

        runner = MinimalRunner(
            device=device,
            is_split=is_split,
            restore=lambda: states.restore(runner),
            model=adapter,
            work_dir=str(workdir),
            train_dataloader=loader,
            train_cfg={
                "type": WholeStepLoop,
                "steps": last_step,
                "accumulate": config.accumulate,
                "shares_batch": is_shared,
                "after_step": after_step,
            },
            optim_wrapper=build_update(optimizer, config, precision, device, before_update),
            launcher="pytorch" if get_world_size() > 1 else "none",
            # None switches a default hook off.
            default_hooks=dict.fromkeys(("logger", "param_scheduler", "timer", "runtime_info", "checkpoint")),
            custom_hooks=[
                StepHook(adapter, schedule, seed, config.accumulate, replays=choice.cuda_graphs),
                history,
                monitors,
            ],
            visualizer=describe_visualizer(
                config.track,
                label,
                identity,
                tracks or workdir / "tracks",
                {"seed": seed, "precision": precision, options: config.model_dump(mode="json")},
                functools.partial(print_line, console),
            ),
            randomness={"seed": mmengine_seed(seed)},
            log_level="ERROR",
            experiment_name=run_name,
        )
        try:
            runner.train()
            gather()
            model.to(device)
            return report()
        except Interrupted as stop:
            if str(stop):  # raised by `after_step`, which has said what is saved
                raise
            raise Interrupted(stop.signal, f"{label}: {states.describe_saved()}") from None
        except RuntimeError as error:
            if is_split and (problem := describe_use(error)):
                raise RunError(f"{label}: {problem}") from error
            raise
        finally:
            runner.visualizer.close()
            release_run(run_name)


def _save_and_interrupt(signal: int, states: TrainingStates, history: HistoryHook, iteration: int) -> Interrupted:
    """Save the state, and return the exception that ends the training. All ranks call it."""
    history.check_weights("when it was stopped")
    where = states.describe(iteration)
    try:
        states.save(iteration)
        saved = f"saved {where}"
    except (OSError, RuntimeError) as error:  # a full disk
        saved = f"stopped {where}, which cannot be saved ({describe_error(error)}); {states.describe_saved()}"
    barrier()  # when the first rank exits, torchrun ends the others, which may still be writing
    return Interrupted(signal, f"{states.label}: {saved}")


def _divergence_advice(config: TrainConfig, options: str, precision: str) -> str:
    """What may keep a loss finite, with the paths of the settings. options: the path of the table of `config`."""
    lower = f"Lower {options}.base_lr (it is {config.base_lr:g})"
    if not options.endswith("train"):  # a small table of a plugin, which has neither warmup nor precision
        return lower
    ways = [lower, f"raise {options}.schedule.warmup_{config.unit}s"]
    ways += [f"set {options}.precision=fp32"] if precision != "fp32" else []
    return f"{', '.join(ways[:-1])} or {ways[-1]}"
