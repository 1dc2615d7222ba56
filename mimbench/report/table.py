"""Comparison tables from records: one row a method, one column a metric of one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.store.record import Record

FORMATS = ("text", "markdown", "csv")


@dataclass(frozen=True)
class Column:
    """A metric under one protocol. Scores of different protocols never share a column."""

    task: str
    dataset: str
    metric: str
    unit: str
    protocol: str

    def title(self, ambiguous: bool) -> str:
        name = f"{self.task}: {self.metric}" + (f" [{self.unit}]" if self.unit != "percent" else "")
        return f"{name} ({self.protocol[:6]})" if ambiguous else name


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """A tidy frame: one row a (record, metric), with what tells rows apart."""
    return pd.DataFrame(
        [
            {
                "id": record.id,
                "method": record.method.name,
                "task": record.task.name,
                "encoder": record.encoder.name,
                "dataset": record.dataset.name,
                "recipe": record.recipe_name,
                "varied": " ".join(f"{path}={value}" for path, value in record.varied.items()),
                "set": " ".join(f"{path}={value}" for path, value in record.recipe_passed.get("set", {}).items()),
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

    By default a task shows its primary metric; for detection AP50 as well. The deviation is the sample
    standard deviation over seeds, shown from two seeds up.

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
    columns = _columns(wanted)
    rows = []
    for key, group in wanted.groupby(["recipe", "encoder", "method", "varied", "set"], sort=False):
        row = dict(zip(("recipe", "encoder", "method", "varied", "set"), key, strict=True))
        for title, column in columns.items():
            cell = group[(group["task"] == column.task) & (group["metric"] == column.metric)]
            cell = cell[(cell["protocol"] == column.protocol) & (cell["dataset"] == column.dataset)]
            row[title] = _cell(cell["value"])
        rows.append(row)
    return _without_constant_labels(pd.DataFrame(rows))


def render(table: pd.DataFrame, format: str) -> str:
    """The table as text, Markdown or CSV."""
    if format == "csv":
        return table.to_csv(index=False)
    cells = [list(table.columns), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    if format == "text":
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]]) + "\n"
    if format == "markdown":
        marked = [
            "| " + " | ".join(t.replace("|", "\\|").ljust(w) for t, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        return "\n".join([marked[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *marked[1:]]) + "\n"
    raise InputError(f"unknown table format {format!r}{nearest(format, FORMATS)}")


def _columns(tidy: pd.DataFrame) -> dict[str, Column]:
    keys = ["task", "dataset", "metric", "unit", "protocol"]
    found = [Column(*map(str, row)) for row in tidy[keys].drop_duplicates().itertuples(index=False, name=None)]
    names = [(column.task, column.metric) for column in found]
    return {column.title(names.count((column.task, column.metric)) > 1): column for column in found}


def _cell(values: pd.Series) -> str:
    if values.empty:
        return "-"
    if len(values) == 1:
        return f"{values.iloc[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f} (n={len(values)})"


def _without_constant_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the labels that are the same in every row, but for the method."""
    constant = [c for c in ("recipe", "encoder", "varied", "set") if table[c].nunique() == 1]
    return table.drop(columns=constant)
