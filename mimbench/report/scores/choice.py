"""What a table shows: its fields, methods, tasks, metrics and extra columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mimbench.recipe import AT
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.fields import Fields

ALL_METRICS = ("all",)
"""A choice of metrics: every metric of each task."""


@dataclass(frozen=True)
class Choice:
    """A choice of what to show. Fields are columns of the frame or paths of the recipe."""

    row_fields: Fields = ()
    """Fields of the rows; () leaves them to the table."""
    column_fields: Fields = ()
    """Fields of the columns; () leaves them to the table."""
    metrics: tuple[str, ...] = ()
    """(): each task's primary metric, and those that its display file calls headlines. ALL_METRICS: all of them."""
    methods: tuple[str, ...] = ()
    """(): all."""
    tasks: tuple[str, ...] = ()
    """(): all."""
    baseline: Baseline | None = None
    """Adds a column of differences from it, paired by seed, after each column of scores."""
    published: bool = False
    """Adds a column of published numbers under the same protocol after each column of scores."""
    ranks: bool = False
    """Adds a column of mean ranks over tasks."""
    epochs: bool = False
    """Show earlier epochs of pretrainings too, not only the last. Implied if the epoch is a chosen field."""
    spread: Literal["sd", "se"] = "sd"
    """What follows ±: the std over seeds, or the standard error of the mean."""

    interval: tuple[str, ...] = ()
    """What the interval after each mean covers, in place of ±: "seeds", "images" or both; (): ± is shown."""

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """The metrics that are chosen by name: () for the default and for ALL_METRICS."""
        return () if self.metrics == ALL_METRICS else self.metrics

    @property
    def paths(self) -> list[str]:
        """Recipe paths among the fields, which a frame has as columns if `load_records` is asked for them."""
        of_baseline = self.baseline.paths if self.baseline else ()
        return [*(name for name in (*self.row_fields, *self.column_fields) if "." in name), *of_baseline]

    @property
    def shows_epochs(self) -> bool:
        return self.epochs or bool({"at_epoch", "at_step", *AT} & {*self.row_fields, *self.column_fields})
