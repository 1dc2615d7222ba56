"""A task under check: its runs on datasets that every encoder can classify."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mimbench.contract import Config, Metric, Task
from mimbench.testing.checks import Failure, Skip
from mimbench.testing.colours import Colours, Kind
from mimbench.testing.depths import ColourDepths
from mimbench.testing.form import make_config
from mimbench.testing.pixels import Pixels
from mimbench.testing.scenes import ColourScenes
from mimbench.testing.task_runs import Ran, build_untrained, run_task

DEVIATIONS = 4.5
"""Standard deviations that a score with shuffled labels may differ from chance. One correct task in 150,000 fails."""

FRAMES = 4
"""Of each clip, for a task that takes clips only."""


class TaskSubject:
    """A task to check, with its options. The checks share its runs.

    The task runs on Colours, on ColourScenes if it needs boxes or masks, or on ColourDepths if it needs
    depth. Any encoder can distinguish their classes.
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
    def dataset(self) -> type[Colours] | type[ColourScenes] | type[ColourDepths]:
        """The dataset that provides what the task needs.

        Raises:
            Skip: none does.
        """
        for dataset in (Colours, ColourScenes, ColourDepths):
            if self.task.needs <= dataset.provides:
                return dataset
        needs = ", ".join(sorted(self.task.needs))
        raise Skip(f"it needs {needs}, which neither labelled images nor scenes nor images with depth have")

    def require_labels(self) -> None:
        """Raise Skip if the task uses no labels."""
        if not self.task.needs & {"labels", "boxes", "masks", "depth"}:
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
            self._runs[key] = self._run(self._make_dataset(kind, folder / "data"), batch, folder)
        return self._runs[key]

    def _make_dataset(self, kind: Kind, folder: Path) -> Colours | ColourScenes | ColourDepths:
        if self.dataset is Colours and not self.task.takes_images:
            return Colours(kind, folder, FRAMES)
        return self.dataset(kind, folder)

    def _run(self, dataset: Colours | ColourScenes | ColourDepths, batch: int, folder: Path) -> Ran:
        encoder = build_untrained(dataset.side, Colours.channels, frames=dataset.frames)
        method = None
        if self.task.needs_reconstruction:
            method = Pixels(Pixels.Config(), build_untrained(dataset.side, Colours.channels)).eval()
        return run_task(self.task, encoder, dataset, folder, log=dataset.log, batch=batch, method=method)

    def score(self, ran: Ran) -> float:
        """The primary metric, scaled so that chance is 0 and the best value is 1."""
        best = self.primary.high if self.primary.higher_is_better else self.primary.low
        return self._scaled(ran, best)

    def _scaled(self, ran: Ran, end: float) -> float:
        """The primary metric, scaled so that chance is 0 and `end` is 1.

        Raises:
            Failure: chance is at this end.
        """
        if end == ran.chance:
            raise Failure(
                f"chance is at the declared end of {self.primary.name}, {end:g} {self.primary.unit}; correct `chance`, "
                "or low and high of the metric"
            )
        return (ran.result.metrics[self.primary.name].value - ran.chance) / (end - ran.chance)

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
