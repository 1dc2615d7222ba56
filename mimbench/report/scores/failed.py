"""Failed cells as remarks below a table: how many the table misses, which ones, why, and where the details are."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mimbench.errors import InputError
from mimbench.report.scores.choice import Choice
from mimbench.store.reading import failure_files

if TYPE_CHECKING:
    from mimbench.store.failure import Failure

_LINES = 4
"""Groups of cells that are described; the others are counted."""
_NAMES, _REASON = 4, 100
"""Most methods, tasks or seeds that are listed by name, and the longest reason in characters."""


class FailedCells:
    """The failures below a results folder, without those of cells that have a record by now."""

    def __init__(self, results: Path, recorded: Container[str]) -> None:
        files = failure_files(results)
        self._where = _listed(sorted({str(path.parent) for path in files}), "folders")
        self._failures: list[Failure] = []
        self._damaged: dict[str, str] = {}
        if files:
            from mimbench.store.failure import read_failures  # pydantic, for those who need it

            self._failures, self._damaged = read_failures(files, recorded)

    def require_records(self, choice: Choice, tidy: pd.DataFrame) -> None:
        """Raise InputError if all cells of a chosen method or task have failed."""
        for column, names in (("method", choice.methods), ("task", choice.tasks)):
            for name in names:
                cells = sum(getattr(failure, column) == name for failure in self._failures)
                if cells and name not in set(tidy[column]):
                    raise InputError(
                        f"no record has a {column} {name!r}: {_cells(cells)} of it failed; the reasons are in "
                        f"{self._where}"
                    )

    def remarks(self, is_shown: Callable[[Failure], bool]) -> tuple[str, ...]:
        """Lines for a table. is_shown: whether the table would have shown a cell."""
        missing = [failure for failure in self._failures if is_shown(failure)]
        return (*(_describe(missing, self._where) if missing else ()), *self._damaged.values())


def match_choice(choice: Choice, tidy: pd.DataFrame) -> Callable[[Failure], bool]:
    """A predicate: whether the chosen table would have shown the cell of a failure."""
    methods = {*choice.methods, *((choice.baseline.method,) if choice.baseline else ())}
    measured = set(tidy.loc[tidy["metric"].isin(choice.named_metrics), "task"])

    def is_shown(failure: Failure) -> bool:
        return (
            (not choice.methods or failure.method in methods)
            and (not choice.tasks or failure.task in choice.tasks)
            and (not choice.named_metrics or failure.task in measured)
        )

    return is_shown


def _describe(failures: Sequence[Failure], where: str) -> list[str]:
    count = len(failures)
    lines = [f"{_cells(count)} failed and {'has' if count == 1 else 'have'} no number here; reasons in full: {where}"]
    groups = sorted(_groups(failures), key=lambda group: -group[0])
    lines += [line for _, line in groups[:_LINES]]
    rest = sum(cells for cells, _ in groups[_LINES:])
    return [*lines, f"and {_cells(rest)} more"] if rest else lines


def _groups(failures: Iterable[Failure]) -> list[tuple[int, str]]:
    """(number of cells, their description and reason): cells that failed in the same way are one group."""
    cells: Counter[tuple[str, str, str]] = Counter()
    seeds: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for failure in failures:
        key = failure.method, failure.task, textwrap.shorten(failure.reason, _REASON, placeholder=" ...")
        cells[key] += 1
        seeds[key].add(failure.seed)
    tasks: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    for (method, task, reason), numbers in sorted(seeds.items()):
        tasks[method, tuple(sorted(numbers)), reason].append(task)
    methods: dict[tuple[tuple[str, ...], tuple[int, ...], str], list[str]] = defaultdict(list)
    for (method, seed_numbers, reason), names in tasks.items():
        methods[tuple(names), seed_numbers, reason].append(method)
    remarks = []
    for (measured, seed_numbers, reason), who in methods.items():
        count = sum(cells[method, task, reason] for method in who for task in measured)
        text = f"{_listed(who, 'methods')} on {_listed(measured, 'tasks')}, {_seeds(seed_numbers)}"
        if count != len(who) * len(measured) * len(seed_numbers):
            text += f", {_cells(count)}"  # settings were varied
        remarks.append((count, f"{text}: {reason}"))
    return remarks


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    listed = _listed([str(seed) for seed in seeds], "seeds")
    return listed if len(seeds) > _NAMES else f"seed{'s' * (len(seeds) > 1)} {listed}"


def _listed(names: Sequence[str], what: str) -> str:
    return ", ".join(names) if len(names) <= _NAMES else f"{len(names)} {what}"


def _cells(count: int) -> str:
    return f"{count} cell{'s' * (count != 1)}"
