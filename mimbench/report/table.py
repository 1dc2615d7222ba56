"""Comparison tables from records: one row a method, one column a metric of one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.store.record import Record

FORMATS = ("text", "markdown", "csv")
ROW = ("recipe", "encoder", "method", "varied", "set", "pretraining")
COLUMN = ("task", "metric", "protocol")


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A tidy frame: one row a (record, metric), with what tells rows and columns apart.

    `varied` and `set` leave out the task's own settings: these are in its protocol.
    """
    return pd.DataFrame(
        [
            {
                "id": record.id,
                "recipe": record.recipe_name,
                "encoder": record.encoder.name,
                "method": record.method.name,
                "varied": _settings(record.varied),
                "set": _settings(record.recipe_passed.get("set", {})),
                "pretraining": record.pretraining[:6],
                "task": record.task.name,
                "dataset": record.dataset.name,
                "protocol": record.protocol_fingerprint,
                "seed": record.seed,
                "checkpoint": record.checkpoint.fingerprint,
                "metric": name,
                "value": value.value,
                "unit": value.unit,
                "n": value.n,
                "higher_is_better": value.higher_is_better,
                "primary": index == 0,
                "chance": record.chance,
            }
            for record in records
            for index, (name, value) in enumerate(record.metrics.items())
        ]
    )


def comparison(records: Sequence[Record], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Rows: method with what was varied; columns: (task, metric); cells: "mean ± deviation (n seeds)".

    Seeds are summed up only where all else that shaped the weights is equal. Scores of different protocols
    never share a column: where one metric has several, each column says in what its protocol differs. By
    default a task shows its primary metric, and AP50 where it has one. The deviation is the sample standard
    deviation over seeds, shown from two seeds up.

    Raises:
        InputError: no records, or a metric that none of them has.
    """
    if not records:
        raise InputError("there are no records to make a table of; run `mimbench run` first")
    tidy = frame(records)
    known = set(tidy["metric"])
    for metric in metrics:
        if metric not in known:
            raise InputError(f"no record has a metric {metric!r}{nearest(metric, known)}")
    wanted = tidy[tidy["metric"].isin(metrics)] if metrics else tidy[tidy["primary"] | (tidy["metric"] == "AP50")]
    titles = _titles(wanted, {record.protocol_fingerprint: record.protocol for record in records})
    rows = []
    for labels, group in wanted.groupby(list(ROW), sort=False):
        cells = {key: values["value"] for key, values in group.groupby(list(COLUMN), sort=False)}
        row = dict(zip(ROW, labels, strict=True))
        rows.append(row | {title: _cell(cells.get(key)) for key, title in titles.items()})
    return _without_constant_labels(pd.DataFrame(rows))


def render(table: pd.DataFrame, format: str) -> str:
    """The table as text, Markdown or CSV."""
    if format == "csv":
        return table.to_csv(index=False)
    if format not in FORMATS:
        raise InputError(f"unknown table format {format!r}{nearest(format, FORMATS)}")
    rows = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    if format == "markdown":
        rows = [[text.replace("|", "\\|") for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows]
    rules = ["-" * width for width in widths]
    if format == "markdown":
        lines = [f"| {' | '.join(row)} |" for row in [padded[0], rules, *padded[1:]]]
    else:
        lines = ["  ".join(row).rstrip() for row in [padded[0], rules, *padded[1:]]]
    return "\n".join(lines) + "\n"


def _titles(tidy: pd.DataFrame, protocols: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str, str], str]:
    """A title for each (task, metric, protocol)."""
    titles: dict[tuple[str, str, str], str] = {}
    for task, metric in tidy[["task", "metric"]].drop_duplicates().itertuples(index=False, name=None):
        group = tidy[(tidy["task"] == task) & (tidy["metric"] == metric)]
        unit = group["unit"].iloc[0]
        name = f"{task}: {metric}" + (f" [{unit}]" if unit != "percent" else "")
        keys = list(dict.fromkeys(group["protocol"]))
        differences = _differences([dict(_flat(protocols[key])) for key in keys])
        for difference, key in sorted(zip(differences, keys, strict=True)):
            titles[task, metric, key] = f"{name} ({difference})" if len(keys) > 1 else name
    return titles


def _differences(protocols: list[dict[str, Any]]) -> list[str]:
    """In what each protocol differs from the others: "pooling=token"."""
    paths = [path for path in dict.fromkeys(path for p in protocols for path in p) if not path.endswith(".content")]
    differing = [path for path in paths if len({repr(protocol.get(path)) for protocol in protocols}) > 1]
    told = [" ".join(f"{path}={protocol.get(path)}" for path in differing) for protocol in protocols]
    return told if len(set(told)) == len(told) else [f"{text} protocol {i + 1}".strip() for i, text in enumerate(told)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _settings(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{path}={value}" for path, value in settings.items() if not path.startswith(("task.", "tasks.")))


def _cell(values: pd.Series | None) -> str:
    if values is None:
        return "-"
    if len(values) == 1:
        return f"{values.iloc[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f} (n={len(values)})"


def _without_constant_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the labels that tell no rows apart; the hash of the pretraining is the last resort."""
    told = [label for label in ROW if label != "pretraining"]
    dropped = [label for label in told if label != "method" and table[label].nunique() == 1]
    if not table.duplicated(subset=told).any():
        dropped.append("pretraining")
    return table.drop(columns=dropped)
