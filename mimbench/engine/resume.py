"""Saving the state of an unfinished training, and resuming from it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object
from rich.console import Console

from mimbench.advice import is_out_of_memory
from mimbench.contract import TrainConfig
from mimbench.engine.adapter import MinimalRunner, RunnerModel
from mimbench.engine.hooks import HistoryHook
from mimbench.engine.monitoring import MonitorHook
from mimbench.engine.progress import print_line
from mimbench.engine.ranks import fails_together, on_first_rank
from mimbench.engine.sharding import gather_whole, split_as, split_optimizer_state
from mimbench.engine.state_files import Position, load_state, newest_valid_state, save_state
from mimbench.errors import InputError, RunError
from mimbench.optim import Schedule
from mimbench.text import list_first


class TrainingStates:
    """Saves the state of one training, and loads it into the model, the optimizer, the history and the loop."""

    def __init__(
        self,
        label: str,
        folder: Path,
        adapter: RunnerModel,
        optimizer: torch.optim.Optimizer,
        history: HistoryHook,
        monitors: MonitorHook,
        schedule: Schedule,
        config: TrainConfig,
        console: Console,
        identity: str,
    ) -> None:
        """identity: names this training among all others. States of another identity are not used."""
        self.identity = identity
        self.label, self.folder, self.adapter, self.optimizer = label, folder, adapter, optimizer
        self.history, self.monitors = history, monitors
        self.schedule, self.config, self.console = schedule, config, console

    def save(self, iteration: int) -> None:
        """Write the state after `iteration` micro-batches. All ranks call it and fail together; rank 0 writes."""
        history = self.history.state()
        steps = iteration // self.config.accumulate
        state = {
            "model": gather_whole(self.adapter.state_dict()),
            "optimizer": gather_whole(self.optimizer.state_dict()),
            "iteration": iteration,
            "steps_per_epoch": self.schedule.steps_per_epoch,
            "history": history,
            "monitored": self.monitors.state(),
        }
        epochs = steps / self.schedule.steps_per_epoch
        on_first_rank(save_state)(self.folder, state, steps=steps, epochs=epochs, identity=self.identity)

    def restore(self, runner: MinimalRunner) -> None:
        """Load the newest valid state. Without one, the training starts. All ranks call it, and fail together.

        Raises:
            InputError: the state is that of another model, or of another amount of data.
            RunError: the ranks do not see the same files.
        """
        report = functools.partial(print_line, self.console)
        loaded = fails_together(load_state)(self.folder, report, identity=self.identity)
        hashes = all_gather_object(loaded[0].sha256 if loaded else None)
        if len(set(hashes)) > 1:
            raise RunError(f"{self.label}: not all processes read the same state in {self.folder}; is it shared?")
        if loaded:
            self._put_back(runner, *loaded)

    @fails_together
    def _put_back(self, runner: MinimalRunner, position: Position, state: Mapping[str, Any]) -> None:
        advice = f"delete {self.folder} to train anew"
        try:
            mismatch = _describe_mismatch(state["model"], self.adapter.state_dict())
            if state["steps_per_epoch"] != self.schedule.steps_per_epoch:
                mismatch = f"{state['steps_per_epoch']} steps per epoch, not {self.schedule.steps_per_epoch}"
            if mismatch:
                raise InputError(
                    f"{position.path} was left by other code or data of {self.label} ({mismatch}); {advice}"
                )
            current = self.adapter.state_dict()
            weights = {name: split_as(value, current[name]) for name, value in state["model"].items()}
            self.adapter.load_state_dict(weights, strict=True)
            self.optimizer.load_state_dict(split_optimizer_state(state["optimizer"], self.optimizer))
            self.history.restore(state["history"])
            if "monitored" in state:  # a state of an older version has none
                self.monitors.restore(state["monitored"])
            whole_steps = range(0, self.schedule.steps * self.config.accumulate + 1, self.config.accumulate)
            if state["iteration"] not in whole_steps:
                raise ValueError(f"it ends at micro-batch {state['iteration']}")
            runner.train_loop.start_from(state["iteration"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{position.path} was left by other code of {self.label} ({type(error).__name__}: {error}); {advice}"
            ) from error
        print_line(self.console, f"{self.label}: resumes {self.describe(state['iteration'])}")

    def describe(self, iteration: int) -> str:
        """How far a training is after so many micro-batches, such as "after step 3 of 5 in epoch 2 of 4".

        If the budget is in steps: "after step 8 of 20".
        """
        steps = iteration // self.config.accumulate
        if self.config.unit == "step":
            return f"after step {steps} of {self.config.length}"
        epoch, step = divmod(steps, self.schedule.steps_per_epoch)
        if not step:
            return f"after epoch {epoch} of {self.config.epochs}"
        return f"after step {step} of {self.schedule.steps_per_epoch} in epoch {epoch + 1} of {self.config.epochs}"

    def last_saved(self) -> Path | None:
        """The file that the training would resume from; None if it would start over."""
        position = newest_valid_state(self.folder)
        return position.path if position else None

    def describe_saved(self) -> str:
        """What an interrupted training has saved, such as "saved after epoch 2 of 4"."""
        position = newest_valid_state(self.folder)
        if not position or not position.steps:
            return "nothing is saved yet, so it starts over"
        return f"saved {self.describe(position.steps * self.config.accumulate)}"


def _describe_mismatch(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """How the names and shapes of two state dicts differ; "" if they do not."""
    shapes = [{name: tuple(getattr(value, "shape", ())) for name, value in state.items()} for state in (saved, current)]
    differing = {
        "missing": sorted(set(current) - set(saved)),
        "unexpected": sorted(set(saved) - set(current)),
        "of another shape": sorted(name for name in set(saved) & set(current) if shapes[0][name] != shapes[1][name]),
    }
    named = {what: [name.removeprefix("trainable.") for name in names] for what, names in differing.items() if names}
    return "; ".join(f"{what}: {list_first(names)}" for what, names in named.items())
