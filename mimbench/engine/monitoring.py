"""Measures a model at fixed steps of its training, and leaves the training as it was, to the last bit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from mimbench.engine.adapter import MinimalRunner
from mimbench.engine.hooks import HistoryHook
from mimbench.engine.progress import Progress

Curves = dict[str, list[tuple[float, float]]]
"""(epochs done, value) of each measurement, by name."""


@dataclass(frozen=True)
class Monitoring:
    """What to measure during a training, and when."""

    measure: Callable[[], Mapping[str, float]]
    """The values by name, of the model as it is now. It must not change the model. All ranks call it together."""
    every: int
    """Optimizer steps between two measurements. The model is also measured before the first and after the last step."""


class MonitorHook(Hook):
    """Calls `Monitoring.measure`, and keeps the curves and the seconds that it takes."""

    def __init__(
        self,
        monitoring: Monitoring | None,
        progress: Progress,
        history: HistoryHook,
        device: torch.device,
        *,
        steps_per_epoch: int,
        last_step: int,
    ) -> None:
        """
        Args:
            monitoring: None measures nothing; the curves of an interrupted training are kept all the same.
            history: does not count the seconds of measurements.
            device: whose random numbers are put back.
            steps_per_epoch: optimizer steps, for the place of a value on its curve.
            last_step: at which this run of the training ends.
        """
        self._monitoring, self._progress, self._history, self._device = monitoring, progress, history, device
        self._steps_per_epoch, self._last_step = steps_per_epoch, last_step
        self.curves: Curves = {}
        self.seconds = 0.0

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to go on with the same curves."""
        return {
            "curves": {name: list(map(list, points)) for name, points in self.curves.items()},
            "seconds": self.seconds,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.curves = {name: [(at, value) for at, value in points] for name, points in state["curves"].items()}
        self.seconds = state["seconds"]

    def before_train(self, runner: MinimalRunner) -> None:
        if runner.iter == 0:
            self.after_step(runner, 0)

    def after_step(self, runner: MinimalRunner, step: int) -> None:
        """Measure if it is due after so many optimizer steps. All ranks call it."""
        monitoring = self._monitoring
        if monitoring is None or (step % monitoring.every and step != self._last_step):
            return
        started = time.perf_counter()
        with undisturbed(self._device):
            values = monitoring.measure()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self._history.leave_out(seconds)
        epochs = step / self._steps_per_epoch
        for name, value in values.items():
            self.curves.setdefault(name, []).append((epochs, value))
        self._progress.monitored(values, seconds, epochs, is_last=step == self._last_step)
        if values:
            runner.visualizer.add_scalars({f"monitor/{name}": value for name, value in values.items()}, step=step)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Within this context no gradient is recorded and nothing is cast; random numbers go on afterwards as before."""
    python, of_numpy = random.getstate(), np.random.get_state()
    on_cuda = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(devices=on_cuda),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
