"""A task under check: its runs on datasets that every encoder can classify."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mimbench.contract import Config, Encoder, InputConfig, Method, Metric, Task, TaskContext, TaskResult
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.testing.checks import Skip
from mimbench.testing.colours import Colours, Kind, LabelLog, WatchedFeatures
from mimbench.testing.form import make_config
from mimbench.testing.pixels import Pixels
from mimbench.testing.scenes import ColourScenes

DEVIATIONS = 4.5
"""Standard deviations that a score with shuffled labels may differ from chance. One correct task in 150,000 fails."""


@dataclass(frozen=True)
class Ran:
    """One run of the task under check."""

    result: TaskResult
    chance: float
    before: Mapping[str, Tensor]
    """State of the encoder before the run, and of the method if the task needs one."""
    after: Mapping[str, Tensor]
    log: LabelLog


class TaskSubject:
    """A task to check, with its options. The checks share its runs.

    The task runs on Colours, or on ColourScenes if it needs boxes or masks. Any encoder can distinguish their classes.
    """

    kind = "task"

    def __init__(self, task: type[Task], options: Mapping[str, Any] | Config | None, folder: Path | None) -> None:
        self.plugin, self._options = task, options
        self._temporary = None if folder else TemporaryDirectory(prefix="mimbench-check-")
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self._runs: dict[Any, Ran] = {}

    def make_config(self) -> Any:
        return make_config(self.plugin, self._options, f"tasks.{self.plugin.name}")

    @functools.cached_property
    def task(self) -> Task:
        return self.plugin(self.make_config())

    @property
    def primary(self) -> Metric:
        return self.task.metrics[0]

    @property
    def dataset(self) -> type[Colours] | type[ColourScenes]:
        """The dataset that provides what the task needs.

        Raises:
            Skip: neither does.
        """
        for dataset in (Colours, ColourScenes):
            if self.task.needs <= dataset.provides:
                return dataset
        needs = ", ".join(sorted(self.task.needs))
        raise Skip(f"it needs {needs}, which neither labelled images nor scenes have")

    def require_labels(self) -> None:
        """Raise Skip if the task uses no labels."""
        if not self.task.needs & {"labels", "boxes", "masks"}:
            raise Skip("it uses no labels")

    def ran(self, kind: Kind = "plain", *, batch: int = 64, again: bool = False) -> Ran:
        """Run the task on its dataset, or return the earlier run with the same arguments.

        Args:
            kind: of dataset; see Colours.
            batch: batch size of feature extraction.
            again: run it a second time.
        """
        key = (kind, batch, again)
        if key not in self._runs:
            folder = self.folder / "-".join(map(str, key))
            self._runs[key] = self._run(self.dataset(kind, folder / "data"), batch, folder)
        return self._runs[key]

    def _run(self, dataset: Colours | ColourScenes, batch: int, folder: Path) -> Ran:
        # Imported here, since the engine is slow to import and checks of other plugins do not need it.
        from mimbench.engine.fit import fit
        from mimbench.harness.running.features import FrozenFeatures
        from mimbench.store.store import Store

        device, input_config, log = torch.device("cpu"), InputConfig(image_size=dataset.side), dataset.log
        encoder = _encoder(dataset.side)
        method = Pixels(Pixels.Config(), _encoder(dataset.side)).eval() if self.task.needs_reconstruction else None
        before = _states(encoder, method)
        self.task.check(encoder, dataset)
        store = Store(folder)
        features = FrozenFeatures(encoder, input_config, device, {}, store, say=_silent, batch=batch)
        trainer = functools.partial(
            fit, seed=0, device=device, workdir=folder / "training", console=Console(quiet=True)
        )
        context = TaskContext(
            seed=0,
            device=device,
            workdir=store.work("task"),
            input=input_config,
            fit=log.watched(trainer, "training"),
            features=WatchedFeatures(features, log),
            say=_silent,
            method=method,
        )
        with log.listening():
            result = self.task.run(encoder, dataset, context)
        return Ran(result, self.task.chance(dataset), before, _states(encoder, method), log)

    def score(self, ran: Ran) -> float:
        """The primary metric, scaled so that chance is 0 and the best value is 1."""
        best = self.primary.high if self.primary.higher_is_better else self.primary.low
        return (ran.result.metrics[self.primary.name].value - ran.chance) / (best - ran.chance)

    def allowed(self, ran: Ran) -> float:
        """How far the primary metric may differ from chance if nothing was learnt, in its unit."""
        metric, n = self.primary, ran.result.metrics[self.primary.name].n
        width = metric.high - metric.low
        share = min(max((ran.chance - metric.low) / width, 0.05), 0.95)
        return DEVIATIONS * width * math.sqrt(share * (1 - share) / n)

    def describe(self, ran: Ran) -> str:
        """The primary metric, chance and n, for messages."""
        measured = ran.result.metrics[self.primary.name]
        return f"{self.primary.name} {measured.value:.1f} {self.primary.unit}, chance {ran.chance:.1f}, n {measured.n}"


def _encoder(side: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ViTConfig(patch_size=4, embed_dim=16, depth=2, num_heads=2)
        return ViT(config, image_size=side, in_channels=Colours.channels)


def _states(encoder: Encoder, method: Method | None) -> dict[str, Tensor]:
    state = dict(encoder.state_dict())
    if method is not None:
        state |= {f"method.{name}": value for name, value in method.state_dict().items()}
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _silent(text: str) -> None:
    return
