"""Derived tables of errors under several conditions, each relative to the errors of a baseline.

A task declares such a table in its display file, see `mimbench.display.RelativeErrors`. Mean corruption errors are one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mimbench.display import described_tasks
from mimbench.display_file import RelativeErrors
from mimbench.errors import InputError, nearest
from mimbench.report.scores.statistics import best_and_next, summarise
from mimbench.report.tables.table import Cell, Column, Table, mark_cells
from mimbench.report.tables.values import Mean

if TYPE_CHECKING:
    from mimbench.store.record import Record


@dataclass(frozen=True)
class DerivedTable:
    """A table that a task declares."""

    name: str
    task: str
    display: RelativeErrors


@dataclass(frozen=True)
class ErrorRatios:
    """Of one record, in percent: 100 is as good as the baseline, less is better."""

    mean: float
    """Mean over conditions of the error, summed along the curve, divided by the baseline's."""
    mean_above_clean: float | None
    """The same for the errors in excess of the clean error; None if a condition costs the baseline nothing."""
    by_condition: Mapping[str, float]
    """The terms of `mean`."""


def derived_tables() -> dict[str, DerivedTable]:
    """Every derived table that an installed task declares, by name."""
    return {
        name: DerivedTable(name, task, display)
        for task, description in described_tasks().items()
        for name, display in description.relative_errors.items()
    }


def find_derived_table(name: str) -> DerivedTable:
    """Raises InputError: no installed task declares a table of this name."""
    tables = derived_tables()
    if name not in tables:
        raise InputError(f"unknown derived table {name!r}{nearest(name, tables)}")
    return tables[name]


def compute_error_ratios(table: DerivedTable, record: Record, baseline: Record) -> ErrorRatios:
    """The errors of `record` relative to those of `baseline`.

    Raises:
        InputError: one is of another task, they differ in protocol or dataset, or the baseline makes no error under a
            condition.
    """
    errors, base = _errors(table, record), _errors(table, baseline)
    for part in ("protocol_fingerprint", "dataset"):
        if getattr(record, part) != getattr(baseline, part):
            name = part.removesuffix("_fingerprint")
            raise InputError(f"records {record.id} and {baseline.id} differ in {name}: their errors do not compare")
    flawless = [name for name, values in base.items() if sum(values) <= 0]
    if flawless:
        raise InputError(f"baseline {baseline.id} makes no error under {', '.join(flawless)}: nothing to divide by")
    by_condition = {name: 100 * sum(values) / sum(base[name]) for name, values in errors.items()}

    above = _above_clean(table, record, errors)
    base_above = _above_clean(table, baseline, base)
    mean_above = None
    if min(base_above.values()) > 0:
        mean_above = sum(100 * above[name] / base_above[name] for name in above) / len(above)
    return ErrorRatios(sum(by_condition.values()) / len(by_condition), mean_above, by_condition)


def build_derived_table(table: DerivedTable, records: Sequence[Record], baseline: str) -> Table:
    """The means of every method relative to the method `baseline`, seed by seed, and one column per condition.

    Raises:
        InputError: no records of the task, records of several protocols or datasets, none of the baseline, or two of
            it with one seed.
    """
    task, title = table.task, table.display.title
    records = [record for record in records if record.task.name == task]
    if not records:
        raise InputError(f"no records of the task {task}; make some: mimbench run --task {task} --method METHOD")
    if len({(record.protocol_fingerprint, record.dataset.version) for record in records}) > 1:
        raise InputError(f"the {task} records are of several protocols or datasets; keep each in a separate folder")
    base = _by_seed(table, records, baseline)
    groups: dict[tuple[str, str], dict[int, ErrorRatios]] = {}
    for record in records:
        if record.seed in base:
            ratios = compute_error_ratios(table, record, base[record.seed])
            groups.setdefault((record.method.name, record.pretraining), {})[record.seed] = ratios
    rows = [groups[key] for key in sorted(groups)]
    columns = {
        title: _cells(rows, lambda ratios: ratios.mean),
        f"relative {title}": _cells(rows, lambda ratios: ratios.mean_above_clean),
    }
    for name in next(iter(rows[0].values())).by_condition:
        columns[name] = _cells(rows, functools.partial(_of_condition, name))
    note = f"error over that of {baseline}, percent, paired by seed: 100 is as good, less is better"
    return Table(
        (
            Column("method"),
            *(Column(name, ("mean", "sd", "n"), (note,) if name == title else ()) for name in columns),
        ),
        tuple(zip([Cell(method) for method, _ in sorted(groups)], *columns.values(), strict=True)),
        remarks=("±: std over n seeds (sample standard deviation)", f"{title}: {table.display.source}"),
    )


def _by_seed(table: DerivedTable, records: Sequence[Record], baseline: str) -> dict[int, Record]:
    """The baseline's records."""
    base: dict[int, Record] = {}
    for record in records:
        if record.method.name == baseline:
            if record.seed in base:
                raise InputError(
                    f"baseline {baseline} has two records of seed {record.seed}: {base[record.seed].id}, "
                    f"{record.id}; keep one"
                )
            base[record.seed] = record
    if not base:
        methods = {record.method.name for record in records}
        raise InputError(f"no {table.task} record of baseline {baseline!r}{nearest(baseline, methods)}")
    return base


def _cells(rows: Sequence[Mapping[int, ErrorRatios]], ratio: Callable[[ErrorRatios], float | None]) -> list[Cell]:
    """One column: the mean over the seeds of each row, empty if a seed has no value."""
    scores: list[Mapping[int, float] | None] = []
    for row in rows:
        values = {seed: value for seed, ratios in row.items() if (value := ratio(ratios)) is not None}
        scores.append(values if len(values) == len(row) else None)
    cells = [Cell() if score is None else Cell(Mean(summarise(list(score.values())))) for score in scores]
    verdict = best_and_next(scores, higher_is_better=False)
    return mark_cells(cells, {"best": verdict.best, "similar": verdict.similar})


def _of_condition(name: str, ratios: ErrorRatios) -> float | None:
    return ratios.by_condition[name]


def _above_clean(table: DerivedTable, record: Record, errors: Mapping[str, list[float]]) -> dict[str, float]:
    """Error in excess of the clean error, summed along the curve, for each condition."""
    clean = 100 - record.metrics[table.display.clean].value
    return {name: sum(values) - len(values) * clean for name, values in errors.items()}


def _errors(table: DerivedTable, record: Record) -> dict[str, list[float]]:
    """Error along the curve, percent, for each condition."""
    if record.task.name != table.task:
        raise InputError(f"record {record.id} is of task {record.task.name!r}; {table.name} is for {table.task}")
    start = table.display.curves
    return {
        name.removeprefix(start): [100 - value for value in values]
        for name, values in record.curves.items()
        if name.startswith(start)
    }
