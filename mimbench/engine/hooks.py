"""What happens around every training step: seeds, rates, progress, guards."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook

from mimbench.contract import FitReport
from mimbench.engine.adapter import MinimalRunner, RunnerModel
from mimbench.engine.progress import Progress
from mimbench.errors import RunError
from mimbench.optim import Schedule
from mimbench.seeds import derive_seed


class StepHook(Hook):
    """Seeds every step from (seed, rank, step) and sets its learning rate.

    All randomness of a step follows from these three, so a resumed run draws what an unbroken one would.
    """

    priority = "VERY_HIGH"

    def __init__(self, adapter: RunnerModel, schedule: Schedule, seed: int, accumulate: int) -> None:
        self.adapter, self.schedule, self.seed, self.accumulate = adapter, schedule, seed, accumulate

    def before_train_iter(self, runner: MinimalRunner, batch_idx: int, data_batch: Any = None) -> None:
        seed = derive_seed(self.seed, runner.rank, runner.iter)
        torch.manual_seed(seed)
        self.adapter.generator.manual_seed(seed)
        step = runner.iter // self.accumulate
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = self.schedule.lr(step, group["lr_scale"])

    def after_train_iter(
        self, runner: MinimalRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        after_step = getattr(self.adapter.trainable, "after_step", None)
        if after_step and (runner.iter + 1) % self.accumulate == 0:
            after_step((runner.iter + 1) / (self.schedule.steps * self.accumulate))


NOT_THE_RATE = (
    "No update had been made yet, so the learning rate is not the cause: look for images or labels that are not "
    "finite, for initial weights that are too large, and for a division or a logarithm in the loss"
)


class HistoryHook(Hook):
    """Mean loss of each epoch, seconds spent, the progress bar, and the stop when the loss is not finite.

    Reading a loss makes a CUDA device wait, so there it is read every `every` micro-batches, and at each epoch's end.
    """

    priority = "NORMAL"

    def __init__(
        self,
        adapter: RunnerModel,
        progress: Progress,
        *,
        images_per_step: int,
        every: int,
        accumulate: int,
        label: str,
        advice: str,
        last_saved: Callable[[], Path | None],
    ) -> None:
        """advice: what a person may try when the training diverges, as an imperative.

        last_saved: the file that an interrupted training would go on from.
        """
        self.adapter, self.progress, self.every, self.label = adapter, progress, every, label
        self.advice, self.accumulate, self.last_saved = advice, accumulate, last_saved
        self.images_per_step = images_per_step
        self.loss: list[float] = []
        self.seconds_before = 0.0
        self._started = time.perf_counter()
        self._losses: list[torch.Tensor] = []
        self._unread = 0

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self._started

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to report the same history. All ranks call it together."""
        losses = _over_ranks(torch.stack(self._losses)).cpu() if self._losses else torch.empty(0)
        return {"loss": list(self.loss), "seconds": self.seconds, "losses": losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self.loss, self.seconds_before = list(state["loss"]), state["seconds"]
        self._losses = list(state["losses"].to(self.adapter.generator.device))

    def before_train(self, runner: MinimalRunner) -> None:
        self._started = time.perf_counter()
        self.progress.start(runner.max_iters, runner.iter, self.images_per_step)

    def after_train_iter(
        self, runner: MinimalRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        self._unread += 1
        if self._unread == self.every:
            self._read(runner)

    def after_train_epoch(self, runner: MinimalRunner) -> None:
        self._read(runner)
        # Averaged over ranks first, as `state` saves them: a resumed epoch has the same mean to the last bit.
        self.loss.append(float(_over_ranks(torch.stack(self._losses)).mean()))
        self._losses = []
        self.progress.epoch(runner.epoch + 1, runner.max_epochs, self.loss[-1])
        self.check_weights(f"after epoch {runner.epoch + 1}")
        runner.visualizer.add_scalar("loss", self.loss[-1], runner.epoch + 1)
        for name, value in self.adapter.logs.items():
            runner.visualizer.add_scalar(name, float(value), runner.epoch + 1)

    def _read(self, runner: MinimalRunner) -> None:
        if not self._unread:
            return
        losses = _over_ranks(torch.stack(self._losses[-self._unread :]))
        self._unread = 0
        if not torch.isfinite(losses).all():
            bad = int((~torch.isfinite(losses)).nonzero()[0])
            before = len(losses) - 1 - bad  # micro-batches since then
            micro_batch = len(self._losses) - before
            what = f"the loss is {float(losses[bad])} at step {micro_batch} of epoch {runner.epoch + 1}"
            raise self._stop(what, updated=runner.epoch > 0 or micro_batch > self.accumulate)
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        self.progress.step(runner.iter + 1, float(losses[-1]), rate)

    def check_weights(self, when: str) -> None:
        """Raise RunError if a weight is not finite; such weights are never saved."""
        norms = torch._foreach_norm([p.detach() for p in self.adapter.parameters()])
        if not math.isfinite(float(torch.stack([norm.float() for norm in norms]).sum())):
            raise self._stop(f"a weight is not finite {when}", updated=True)

    def _stop(self, what: str, *, updated: bool) -> RunError:
        """updated: the optimizer had made a step before, so that the learning rate may be the cause."""
        advice = self.advice if updated else NOT_THE_RATE
        kept = self.last_saved()
        kept_text = f"the last good checkpoint is kept: {kept}" if kept else "no checkpoint had been written yet"
        return RunError(f"{self.label}: {what}; stopped. {advice} ({kept_text})")


class EpochHook(Hook):
    """Calls back after given epochs. Those that a resumed training has behind it are skipped."""

    priority = "LOW"  # when the history of the epoch is complete

    def __init__(self, after: Mapping[int, Callable[[FitReport], None]], report: Callable[[], FitReport]) -> None:
        """report: what the training took so far, which the calls are given."""
        self.after, self.report = after, report

    def after_train_epoch(self, runner: MinimalRunner) -> None:
        if runner.epoch + 1 in self.after:
            self.after[runner.epoch + 1](self.report())


def _over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Means over all ranks, so that they see one loss, and stop together if it is not finite on any."""
    values = values.clone()
    all_reduce(values, "mean")
    return values
