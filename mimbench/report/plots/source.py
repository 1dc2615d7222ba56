"""What a plot is made from: records, as a frame and as whole bodies, and the options of the plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pandas as pd

from mimbench.errors import InputError
from mimbench.report.records.frame import build_frame, to_rows
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.collect import filter_rows
from mimbench.report.scores.score import range_problem
from mimbench.store.artifacts import results_folders
from mimbench.store.reading import read_all

if TYPE_CHECKING:
    from mimbench.store.record import Record

T = TypeVar("T")
Row = Mapping[str, Any]
SINGLE_COLUMN = 3.4
"""Width of one column of a paper, inches."""


class NothingToPlot(InputError):
    """The records hold nothing of this kind; the message says which would, and how to make them."""


@dataclass(frozen=True)
class Options:
    """What to draw, and how wide."""

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """(): each task's primary metric."""
    baseline: str | None = None
    """A method. Bars show differences from it, paired by seed; curves over settings and costs show it as a line."""
    over: str | None = None
    """Ablation: the path that was varied; required if several were."""
    spread: Literal["ci", "sd"] = "ci"
    """ci: 95 % interval of the mean (Student's t); sd: ±1 std over seeds."""
    width: float = SINGLE_COLUMN
    """Of the figure, inches."""
    caption: bool = False
    """Draw what a caption has to say (intervals, seeds, sources) below the panels."""
    published: bool = False
    """Draw published curves over the same setting too."""


class Source:
    """Records, each known by its id."""

    def __init__(self, bodies: Iterable[tuple[Path | None, Mapping[str, Any]]], folder: str = "runs") -> None:
        """bodies: plain data, each with its file, as `read_all` gives them. folder: as error messages call it."""
        self._bodies = list(bodies)
        self.folder = folder
        self.bodies = {str(body["id"]): body for _, body in self._bodies}
        self.files = {str(body["id"]): file for file, body in self._bodies}
        self._frames: dict[tuple[str, ...], pd.DataFrame] = {}
        self._cache: dict[Callable[[Source], Any], Any] = {}

    @classmethod
    def read(cls, results: Path) -> Source:
        """The records below a folder.

        Raises:
            InputError: no such folder, no record in it, or a damaged one.
        """
        return cls(read_all(results), str(results))

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> Source:
        return cls((None, record.as_json()) for record in records)

    def tidy(self, paths: Sequence[str] = ()) -> pd.DataFrame:
        """As `load_records` gives it, with a column for each of `paths`."""
        key = tuple(paths)
        if key not in self._frames:
            self._frames[key] = build_frame(self._bodies, paths)
        return self._frames[key]

    def chosen(self, options: Options, paths: Sequence[str] = (), *, epochs: bool = False) -> pd.DataFrame:
        """The rows that `options` asks for; `epochs`: those of earlier epochs of pretrainings too.

        Raises:
            InputError: a method, task, metric or baseline that no record has.
        """
        tidy = filter_rows(
            self.tidy(paths),
            Choice(
                methods=options.methods,
                tasks=options.tasks,
                metrics=options.metrics,
                baseline=Baseline(options.baseline, options.baseline) if options.baseline else None,
                epochs=epochs,
            ),
        )
        return tidy if options.metrics else tidy[tidy["primary"]]

    def rows(self, options: Options, paths: Sequence[str] = (), *, epochs: bool = False) -> list[Row]:
        """As `chosen`, as plain data; what is missing is None.

        Raises:
            InputError: as `chosen`; a value is outside of its metric's range.
        """
        rows: list[Row] = list(to_rows(self.chosen(options, paths, epochs=epochs)))
        for row in rows:
            if problem := range_problem(row, row["value"]):
                raise InputError(f"record {row['id']}: {problem}; restore or delete it")
        return rows

    def cached(self, make: Callable[[Source], T]) -> T:
        """`make(self)`, computed once."""
        if make not in self._cache:
            self._cache[make] = make(self)
        return self._cache[make]

    def folder_of(self, record_id: str) -> Path | None:
        """The results folder of a record: the one that holds the folder `records` which it lies in."""
        file = self.files[record_id]
        return results_folders(file)[0] if file else None

    def nothing_to_plot(self, kind: str, needed: str, command: str) -> NothingToPlot:
        return NothingToPlot(
            f"nothing to plot as {kind}: needs {needed}; to make some, run `{command} --results {self.folder}`"
        )
