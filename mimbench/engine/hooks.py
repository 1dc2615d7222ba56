"""mmengine hooks: seeds and learning rate per step, loss history, progress, checks for non-finite values."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from mimbench.distributed import average_over_ranks
from mimbench.engine.adapter import MinimalRunner, RunnerModel
from mimbench.engine.progress import Progress
from mimbench.engine.sharding import whole_norms
from mimbench.engine.sharing import shares_batch
from mimbench.errors import RunError
from mimbench.optim import Schedule
from mimbench.seeds import derive_seed


class StepHook(Hook):
    """Seeds every step from (seed, rank, step), and sets its learning rate and weight decay.

    All randomness of a step follows from these three, so a resumed training draws the same numbers as one without
    interruption. Ranks that share a batch are all seeded as rank 0.
    """

    priority = "VERY_HIGH"

    def __init__(
        self, adapter: RunnerModel, schedule: Schedule, seed: int, accumulate: int, *, replays: bool = False
    ) -> None:
        """replays: compiled blocks replay CUDA graphs, whose outputs the next step may overwrite."""
        self.adapter, self.schedule, self.seed, self.accumulate = adapter, schedule, seed, accumulate
        self.replays = replays

    def before_train_epoch(self, runner: MinimalRunner) -> None:
        before_epoch = getattr(self.adapter.trainable, "before_epoch", None)
        if before_epoch:
            before_epoch(runner.epoch)

    def before_train_iter(self, runner: MinimalRunner, batch_idx: int, data_batch: Any = None) -> None:
        rank = 0 if shares_batch(self.adapter.trainable) else runner.rank
        seed = derive_seed(self.seed, rank, runner.iter)
        torch.manual_seed(seed)
        self.adapter.generator.manual_seed(seed)
        if self.replays:
            torch.compiler.cudagraph_mark_step_begin()
        step = runner.iter // self.accumulate
        self.schedule.set_rates(runner.optim_wrapper.optimizer, step)
        before_step = getattr(self.adapter.trainable, "before_step", None)
        if before_step:
            before_step(step / self.schedule.steps, step // self.schedule.steps_per_epoch)

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
    """Records the mean loss per epoch and the seconds, moves the progress bar, and stops if the loss is not finite.

    Reading a loss makes a CUDA device wait. So it is read every `every` micro-batches, and at the end of each epoch.
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
        unit: str,
        advice: str,
        last_saved: Callable[[], Path | None],
    ) -> None:
        """
        Args:
            images_per_step: images per micro-batch, for the speed.
            every: micro-batches between two reads of the loss.
            accumulate: micro-batches per optimizer step.
            label: names the training in messages.
            unit: "epoch" or "step": what the progress is printed in.
            advice: what to try if the training diverges, in the imperative.
            last_saved: returns the file that an interrupted training would resume from.
        """
        self.adapter, self.progress, self.every, self.label = adapter, progress, every, label
        self.advice, self.accumulate, self.last_saved, self.unit = advice, accumulate, last_saved, unit
        self.images_per_step = images_per_step
        # Means of each complete epoch.
        self._epoch_losses: list[float] = []
        self._epoch_logs: dict[str, list[float]] = {}
        self.seconds_before = 0.0
        self._started = time.perf_counter()
        self._losses: list[torch.Tensor] = []  # of this rank, one per micro-batch of the current epoch
        self._logs: dict[str, list[torch.Tensor]] = {}  # the same for each log
        self._unread = 0  # how many of them, at the end of the list, have not been checked

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self._started

    def means(self, epoch: int) -> tuple[list[float], dict[str, list[float]]]:
        """Mean loss and means of logs per epoch, with those of the current epoch so far. All ranks call it together.

        Args:
            epoch: number of the current epoch, from 1, for messages.
        """
        loss = list(self._epoch_losses)
        logs = {name: list(values) for name, values in self._epoch_logs.items()}
        if not self._losses:
            return loss, logs
        # Averaged over ranks first, as `state` saves them: a resumed epoch has the same mean to the last bit.
        loss.append(float(_stacked_over_ranks(self._losses).mean()))
        for name, values in sorted(self._logs.items()):
            steps = _stacked_over_ranks(values)
            finite = steps[torch.isfinite(steps)]  # an accuracy over no samples is NaN
            if not len(finite):
                raise RunError(f"{self.label}: the log {name!r} is never finite in epoch {epoch}; leave it out")
            logs.setdefault(name, []).append(float(finite.mean()))
        return loss, logs

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to report the same history. All ranks call it together.

        Losses and logs of the current epoch are averaged over the ranks.
        """
        return {
            "loss": list(self._epoch_losses),
            "logs": {name: list(values) for name, values in self._epoch_logs.items()},
            "seconds": self.seconds,
            "losses": _stacked_over_ranks(self._losses).cpu(),
            "step_logs": {name: _stacked_over_ranks(values).cpu() for name, values in sorted(self._logs.items())},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._epoch_losses, self.seconds_before = list(state["loss"]), state["seconds"]
        self._epoch_logs = {name: list(values) for name, values in state["logs"].items()}
        device = self.adapter.generator.device
        self._losses = list(state["losses"].to(device))
        self._logs = {name: list(values.to(device)) for name, values in state["step_logs"].items()}

    def leave_out(self, seconds: float) -> None:
        """Leave seconds that were spent on something else than training out of `seconds` and of the speed."""
        self._started += seconds
        self.progress.leave_out(seconds)

    def before_train(self, runner: MinimalRunner) -> None:
        self._started = time.perf_counter()
        units = runner.max_epochs if self.unit == "epoch" else runner.max_iters // self.accumulate
        self.progress.start(runner.max_iters, runner.iter, self.images_per_step, self.unit, units)

    def after_train_iter(
        self, runner: MinimalRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        self._keep_logs()
        self._unread += 1
        if self._unread == self.every:
            done = runner.iter + 1
            self._read(runner, done)
            if self.unit == "step" and done < runner.max_iters:
                self._print_progress(runner, done)

    def _keep_logs(self) -> None:
        """Keep what the step logs. Each step must log the same, since all ranks average together."""
        logs, device = self.adapter.logs, self.adapter.generator.device
        if self._logs and set(logs) != set(self._logs):
            raise RunError(
                f"{self.label}: a step logs {sorted(logs)}, and an earlier one {sorted(self._logs)}; log the same "
                "names in every step"
            )
        for name, value in logs.items():
            # A plain number becomes a tensor on the device in a kernel; a copy from the host would wait.
            scalar = (
                value.detach().to(device, torch.float32)
                if isinstance(value, torch.Tensor)
                else torch.full((), value, dtype=torch.float32, device=device)
            )
            self._logs.setdefault(name, []).append(scalar.reshape(()))

    def after_train_epoch(self, runner: MinimalRunner) -> None:
        """Complete an epoch. One in which the training ends stays open, so that a longer training can continue it."""
        epoch = runner.epoch + 1
        self._read(runner, runner.iter)
        loss, logs = self.means(epoch)
        if runner.train_loop.is_at_epoch_end:
            self._epoch_losses, self._epoch_logs, self._losses, self._logs = loss, logs, [], {}
        self._print_progress(runner, runner.iter)
        self.check_weights(f"after epoch {epoch}")
        tracked = {"loss": loss[-1], **{f"log/{name}": means[-1] for name, means in logs.items()}, "epoch": epoch}
        runner.visualizer.add_scalars(tracked, step=runner.iter // self.accumulate)

    def check(self, runner: MinimalRunner) -> None:
        """Raise RunError if a loss or weight so far is not finite. All ranks call it together, between two steps."""
        self._read(runner, runner.iter)
        self.check_weights(f"after step {runner.iter // self.accumulate}")

    def _print_progress(self, runner: MinimalRunner, done: int) -> None:
        """done: micro-batches."""
        if self.unit == "epoch":
            self.progress.line("epoch", runner.epoch + 1, runner.max_epochs)
        else:
            self.progress.line("step", done // self.accumulate, runner.max_iters // self.accumulate)

    def _read(self, runner: MinimalRunner, done: int) -> None:
        """Check the losses that have not been checked, and show the last one. done: micro-batches."""
        if not self._unread:
            return
        # All ranks see the same losses, and stop together if one of them is not finite.
        losses = average_over_ranks(torch.stack(self._losses[-self._unread :]))
        self._unread = 0
        if not torch.isfinite(losses).all():
            first_bad = int((~torch.isfinite(losses)).nonzero()[0])
            micro_batches_since = len(losses) - 1 - first_bad
            micro_batch = len(self._losses) - micro_batches_since
            what = f"the loss is {float(losses[first_bad])} at step {micro_batch} of epoch {runner.epoch + 1}"
            raise self._diverged(what, updated=runner.epoch > 0 or micro_batch > self.accumulate)
        rate = runner.optim_wrapper.optimizer.param_groups[0]["lr"]
        logs = {name: float(value) for name, value in self.adapter.logs.items()}
        self.progress.step(done, float(losses[-1]), rate, logs)

    def check_weights(self, when: str) -> None:
        """Raise RunError if a weight is not finite; such weights are never saved."""
        norms = whole_norms([p.detach() for p in self.adapter.parameters()])
        if not math.isfinite(float(torch.stack([norm.float() for norm in norms]).sum())):
            raise self._diverged(f"a weight is not finite {when}", updated=True)

    def _diverged(self, what: str, *, updated: bool) -> RunError:
        """The error to raise. updated: the optimizer had made a step, so the learning rate may be the cause."""
        advice = self.advice if updated else NOT_THE_RATE
        path = self.last_saved()
        saved = f"the last good checkpoint is kept: {path}" if path else "no checkpoint had been written yet"
        return RunError(f"{self.label}: {what}; stopped. {advice} ({saved})")


def _stacked_over_ranks(values: list[torch.Tensor]) -> torch.Tensor:
    """Scalars, one per micro-batch, as one tensor of their means over all ranks; empty if there are none."""
    return average_over_ranks(torch.stack(values)) if values else torch.empty(0)
