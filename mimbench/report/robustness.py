"""Mean corruption errors: a record of the robustness task measured by a baseline's record.

Hendrycks & Dietterich (arXiv:1903.12261), section 4.2, with any record as the baseline in place of AlexNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mimbench.errors import InputError

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


def corruption_errors(record: Record, baseline: Record) -> CorruptionErrors:
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
