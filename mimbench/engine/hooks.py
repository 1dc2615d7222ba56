"""What happens around every training step: seeds, rates, progress, guards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, Hook

from mimbench.contract import FitReport
from mimbench.engine.adapter import Adapter, LiveRunner, mix_seed
from mimbench.engine.progress import Progress
from mimbench.errors import RunError
from mimbench.optim import Schedule

STATE = "mimbench"
"""Where the history lives in mmengine's message hub, which its checkpoints carry."""


class StepHook(Hook):
    """Seeds every step from (seed, rank, step) and sets its learning rate.

    All randomness of a step follows from these three, so a resumed run draws what an unbroken one would.
    """

    priority = "VERY_HIGH"

    def __init__(self, adapter: Adapter, schedule: Schedule, seed: int, accumulate: int, iterations: int) -> None:
        """iterations: of the whole schedule, which the training may not go to the end of."""
        self.adapter, self.schedule, self.seed, self.accumulate = adapter, schedule, seed, accumulate
        self.iterations = iterations

    def before_train_iter(self, runner: LiveRunner, batch_idx: int, data_batch: Any = None) -> None:
        seed = mix_seed(self.seed, runner.rank, runner.iter)
        torch.manual_seed(seed)
        self.adapter.generator.manual_seed(seed)
        step = runner.iter // self.accumulate
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = self.schedule.lr(step, group["lr_scale"])

    def after_train_iter(self, runner: LiveRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        after_step = getattr(self.adapter.trainable, "after_step", None)
        if after_step and (runner.iter + 1) % self.accumulate == 0:
            after_step((runner.iter + 1) / self.iterations)


class HistoryHook(Hook):
    """Mean loss of each epoch, seconds spent, the progress bar, and the stop where the loss is not finite.

    Reading a loss makes a CUDA device wait, so there it is read every `every` steps, and at each epoch's end.
    """

    priority = "NORMAL"

    def __init__(
        self, adapter: Adapter, progress: Progress, images_per_step: int, every: int, label: str, advice: str
    ) -> None:
        """advice: what a person may try where the training stops, as an imperative."""
        self.adapter, self.progress, self.every, self.label = adapter, progress, every, label
        self.advice = advice
        self.images_per_step = images_per_step
        self.loss: list[float] = []
        self.seconds_before = 0.0
        self._started = time.perf_counter()
        self._losses: list[torch.Tensor] = []

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self._started

    def before_train(self, runner: LiveRunner) -> None:
        state = runner.message_hub.runtime_info.get(STATE)
        if state:
            self.loss, self.seconds_before = list(state["loss"]), state["seconds"]
        self._started = time.perf_counter()
        self.progress.start(runner.max_iters, runner.iter, self.images_per_step)

    def before_train_epoch(self, runner: LiveRunner) -> None:
        self._losses = []

    def after_train_iter(self, runner: LiveRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) % self.every == 0:
            self._read(runner)

    def after_train_epoch(self, runner: LiveRunner) -> None:
        self._read(runner)
        self.loss.append(float(_over_ranks(torch.stack(self._losses).mean())))
        self.progress.epoch(runner.epoch + 1, runner.max_epochs, self.loss[-1])
        self._check_weights(runner)
        runner.message_hub.update_info(STATE, {"loss": self.loss, "seconds": self.seconds})
        runner.visualizer.add_scalar("loss", self.loss[-1], runner.epoch + 1)
        for name, value in self.adapter.logs.items():
            runner.visualizer.add_scalar(name, float(value), runner.epoch + 1)

    def _read(self, runner: LiveRunner) -> None:
        losses = _over_ranks(torch.stack(self._losses[-self.every :]))
        if not torch.isfinite(losses).all():
            bad = int((~torch.isfinite(losses)).nonzero()[0])
            step = len(self._losses) - len(losses) + bad + 1
            raise self._stop(runner, f"the loss is {float(losses[bad])} at step {step} of epoch {runner.epoch + 1}")
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        self.progress.step(runner.iter + 1, float(losses[-1]), rate)

    def _check_weights(self, runner: LiveRunner) -> None:
        norms = torch._foreach_norm([p.detach() for p in self.adapter.parameters()])
        if not math.isfinite(float(torch.stack([norm.float() for norm in norms]).sum())):
            raise self._stop(runner, f"a weight is not finite after epoch {runner.epoch + 1}")

    def _stop(self, runner: LiveRunner, what: str) -> RunError:
        kept = runner.message_hub.runtime_info.get("last_ckpt")
        kept_text = f"the last good checkpoint is kept: {kept}" if kept else "no checkpoint had been written yet"
        return RunError(f"{self.label}: {what}; stopped. {self.advice} ({kept_text})")


class EpochHook(Hook):
    """Calls back after given epochs, but for those that are past where a run is taken up again."""

    priority = "LOW"  # after the history of the epoch is written, before the checkpoint that a run resumes from

    def __init__(self, after: Mapping[int, Callable[[FitReport], None]], report: Callable[[], FitReport]) -> None:
        """report: what the training took so far, which the calls are given."""
        self.after, self.report = after, report

    def after_train_epoch(self, runner: LiveRunner) -> None:
        if runner.epoch + 1 in self.after:
            self.after[runner.epoch + 1](self.report())


def _over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Means over all ranks, so that they see one loss, and stop together where it is not finite on any."""
    values = values.clone()
    all_reduce(values, "mean")
    return values


def checkpoint_hook(every: int) -> CheckpointHook:
    """Two are kept: mmengine deletes the old one before it writes the new."""
    return CheckpointHook(interval=every, by_epoch=True, max_keep_ckpts=2, save_last=True, save_param_scheduler=False)
