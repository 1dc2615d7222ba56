"""Which record is nearest to the published numbers of a table, if none measured the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mimbench.display import describe_method, describe_task
from mimbench.report.published.numbers import conditions_of, to_plugin_name

Row = Mapping[str, Any]


def describe_nearest(published: Sequence[Row], records: Sequence[Row]) -> str:
    """A line about the record that shares the metric, and most else, with a number of its method; "" if there is none.

    Args:
        published: rows of `load_published`, none of which a record matches.
        records: rows of a frame.
    """
    pairs = [
        (record, _differences(record, row))
        for record in _distinct(records)
        for row in published
        if to_plugin_name(row["method"]) == record["method"]
    ]
    if not pairs:
        return ""
    record, differences = min(pairs, key=lambda pair: ("metric" in pair[1], len(pair[1])))
    method, task = describe_method(record["method"]).label, describe_task(record["task"]).label
    name = f"{method or record['method']} on {record['dataset']}, {task or record['task']}"
    return f"ours: no record matches; nearest: {name}: differs in {', '.join(differences) or 'settings'}"


def _distinct(records: Sequence[Row]) -> list[Row]:
    """One record of each setting: seeds differ in nothing that is compared."""
    keys = ("method", "task", "metric", "dataset", "protocol", "pretraining", "final")
    return list({tuple(record[key] for key in keys): record for record in records}.values())


def _differences(record: Row, row: Row) -> list[str]:
    differing: list[str] = []
    for what, holds, _ in conditions_of(record):
        # Images per epoch say nothing of another number of epochs, which may be unknown.
        is_compared = what != "pretraining images" or not {"epochs", "pretraining data"} & set(differing)
        if is_compared and not holds(row):
            differing.append(what)
    return differing
