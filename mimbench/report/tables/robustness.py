"""Mean corruption errors: a record of the robustness task measured by a baseline's record.

Hendrycks & Dietterich (arXiv:1903.12261), section 4.2, with any record as the baseline in place of AlexNet's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mimbench.errors import InputError, nearest
from mimbench.report.scores.statistics import Summary, summarise
from mimbench.report.tables.table import Cell, Column, Table, mark_best, spread_text

if TYPE_CHECKING:
    from mimbench.store.record import Record

_CURVE = "top1, "
"""What the task's curves of one corruption are called before the corruption's name."""


@dataclass(frozen=True)
class CorruptionErrors:
    """In percent; 100 is as good as the baseline, less is better."""

    mce: float
    """Mean over corruptions of the error, summed over severities, over the baseline's."""
    relative_mce: float | None
    """The same of how far errors lie above the clean error; None where the baseline loses nothing by a corruption."""
    by_corruption: Mapping[str, float]
    """The terms of `mce`."""


def compute_corruption_errors(record: Record, baseline: Record) -> CorruptionErrors:
    """mCE and relative mCE of `record` against `baseline`.

    Raises:
        InputError: one is not of the robustness task, they differ in protocol or dataset, or the baseline makes no
            error under a corruption.
    """
    errors, base = _errors(record), _errors(baseline)
    for what in ("protocol_fingerprint", "dataset"):
        if getattr(record, what) != getattr(baseline, what):
            name = what.removesuffix("_fingerprint")
            raise InputError(f"records {record.id} and {baseline.id} differ in {name}: their errors do not compare")
    flawless = [name for name, values in base.items() if sum(values) <= 0]
    if flawless:
        raise InputError(f"baseline {baseline.id} makes no error under {', '.join(flawless)}: nothing to divide by")
    by_corruption = {name: 100 * sum(values) / sum(base[name]) for name, values in errors.items()}
    return CorruptionErrors(
        sum(by_corruption.values()) / len(by_corruption), _relative(record, baseline, errors, base), by_corruption
    )


def build_corruption_table(records: Sequence[Record], baseline: str) -> Table:
    """mCE of every method against the records of the method `baseline`, seed by seed, and its terms.

    Raises:
        InputError: no records of the robustness task, of several protocols or datasets, none of the baseline, or two
            of it with one seed.
    """
    records = [record for record in records if record.task.name == "robustness"]
    if not records:
        raise InputError("no records of the robustness task; make some: mimbench run --task robustness --method ...")
    if len({(record.protocol_fingerprint, record.dataset.version) for record in records}) > 1:
        raise InputError(
            "the robustness records are of several protocols or datasets; keep each in a folder of its own"
        )
    base = _by_seed(records, baseline)
    groups: dict[tuple[str, str], list[CorruptionErrors]] = {}
    for record in records:
        if record.seed in base:
            found = compute_corruption_errors(record, base[record.seed])
            groups.setdefault((record.method.name, record.pretraining), []).append(found)
    rows = sorted(groups)
    names = list(groups[rows[0]][0].by_corruption)
    columns = [_column(groups, rows, "mCE", lambda errors: errors.mce)]
    columns.append(_column(groups, rows, "relative mCE", lambda errors: errors.relative_mce))
    columns += [_column(groups, rows, name, partial(_term, name)) for name in names]
    note = f"error over that of {baseline}, percent, paired by seed: 100 is as good, less is better"
    labels = [Cell(method) for method, _ in rows]
    return Table(
        (
            Column("method"),
            *(Column(title, ("mean", "sd", "n"), (note,) if title == "mCE" else ()) for title, _ in columns),
        ),
        tuple(zip(labels, *(cells for _, cells in columns), strict=True)),
        remarks=("±: seed sd (sample standard deviation over n seeds)",),
    )


def _by_seed(records: Sequence[Record], baseline: str) -> dict[int, Record]:
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
        raise InputError(f"no robustness record of baseline {baseline!r}{nearest(baseline, _methods(records))}")
    return base


def _column(
    groups: Mapping[tuple[str, str], Sequence[CorruptionErrors]],
    rows: Sequence[tuple[str, str]],
    title: str,
    value: Callable[[CorruptionErrors], float | None],
) -> tuple[str, list[Cell]]:
    summaries: list[Summary | None] = []
    for row in rows:
        values = [found for errors in groups[row] if (found := value(errors)) is not None]
        summaries.append(summarise(values) if len(values) == len(groups[row]) else None)
    cells = [Cell() if each is None else Cell(spread_text(each), (each.mean, each.sd, each.n)) for each in summaries]
    return title, mark_best(cells, summaries, higher_is_better=False)


def _term(name: str, errors: CorruptionErrors) -> float:
    return errors.by_corruption[name]


def _methods(records: Sequence[Record]) -> set[str]:
    return {record.method.name for record in records}


def _relative(
    record: Record, baseline: Record, errors: Mapping[str, list[float]], base: Mapping[str, list[float]]
) -> float | None:
    above, base_above = (
        {name: sum(values) - len(values) * (100 - of.metrics["top1_clean"].value) for name, values in each.items()}
        for of, each in ((record, errors), (baseline, base))
    )
    if min(base_above.values()) <= 0:
        return None
    return sum(100 * above[name] / base_above[name] for name in above) / len(above)


def _errors(record: Record) -> dict[str, list[float]]:
    """Top-1 error by severity, percent, for each corruption."""
    if record.task.name != "robustness":
        raise InputError(f"record {record.id} is of task {record.task.name!r}; corruption errors are of robustness")
    return {
        name.removeprefix(_CURVE): [100 - value for value in values]
        for name, values in record.curves.items()
        if name.startswith(_CURVE)
    }
