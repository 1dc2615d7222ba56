"""Records in a notebook: the numbers of `mimbench table` as frames, and the table itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mimbench.errors import InputError
from mimbench.report.records.frame import COLUMNS, build_frame, load_records
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.choice import Choice
from mimbench.report.scores.collect import ScoreTable, collect_scores, filter_rows
from mimbench.report.scores.fields import Fields
from mimbench.report.scores.names import NAMES
from mimbench.report.scores.score import Key
from mimbench.report.tables.comparison import build_comparisons
from mimbench.report.tables.render import render
from mimbench.report.tables.table import Table
from mimbench.store.reading import read_all

_Names = str | Sequence[str]
"""One name, or several."""
_WHAT = ("id", "method", "setting", "task", "dataset", "seed")


def summary(
    records: pd.DataFrame,
    *,
    rows: _Names = (),
    columns: _Names = (),
    methods: _Names = (),
    tasks: _Names = (),
    metrics: _Names = (),
    wide: bool = False,
) -> pd.DataFrame:
    """Means over seeds, the very numbers of `mimbench table`: only seeds of one setting and protocol are averaged.

    Args:
        records: as `load_records` gives them, or a selection of its rows.
        rows: fields of the table's rows; (): the method and the settings in which records differ.
        columns: fields of its columns; (): the task and the metric.
        methods: (): all.
        tasks: (): all.
        metrics: (): each task's primary metric and other headlines; ("all",): all.
        wide: one row per row of the table, and one column of means per column of the table.

    Returns:
        Long: one row per cell, with the fields, then "mean", "sd" (sample std over seeds), "n" (seeds), and "low" and
        "high" (95 % interval of the mean by Student's t). sd, low and high are missing for one seed.
        Wide: the means, indexed by the fields of the rows.

    Raises:
        InputError: there are no records, a record is there twice, or an unknown name.
    """
    _check(records)
    choice = _choice(rows, columns, methods, tasks, metrics)
    chosen = filter_rows(records, choice)
    scores = collect_scores(chosen, choice)
    protocols = {key: label for key, (label, _) in scores.labels.items()}
    return _wide(scores, protocols) if wide else _long(scores, protocols)


def curves(path: str | Path) -> pd.DataFrame:
    """Everything that records below a folder hold as a curve: one row per point.

    Args:
        path: as for `load_records`.

    Returns:
        Columns "id", "method", "setting", "task", "dataset", "seed" of the record, then "curve" (its name), "index"
        (of the point, from 0) and "value". The curve "pretraining loss" is the mean loss per epoch; the index of a
        monitor, such as "monitor rankme", is the epochs done; a layer's index is that of its curve, and other curves
        are read against one of the same record ("mask_ratio").

    Raises:
        InputError: as `load_records`.
    """
    bodies = read_all(Path(path))
    tidy = build_frame(bodies)
    what = tidy[tidy["primary"]].set_index("id", drop=False)[list(_WHAT)]
    points: list[dict[str, Any]] = []
    for _, body in bodies:
        named = {"pretraining loss": body["checkpoint"].get("loss", []), **body["curves"]}
        shared = dict(what.loc[body["id"]])
        for name, values in named.items():
            points += [{**shared, "curve": name, "index": index, "value": value} for index, value in enumerate(values)]
        for name, measured in body["checkpoint"].get("monitored", {}).items():
            curve = f"monitor {name}"
            points += [{**shared, "curve": curve, "index": epochs, "value": value} for epochs, value in measured]
    return pd.DataFrame(points, columns=[*_WHAT, "curve", "index", "value"])


class NotebookTable:
    """A comparison table. A notebook shows it as HTML, print() as text."""

    def __init__(self, tables: Sequence[Table]) -> None:
        """tables: the comparison, then that of the ablations if there are some."""
        self._tables = tables

    def render(self, format: str) -> str:
        """The table as "text", "markdown", "csv", "html" or "latex".

        Raises:
            InputError: another format.
        """
        return "\n".join(render(table, format) for table in self._tables)

    def __str__(self) -> str:
        return self.render("text")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.render("html")

    def _repr_latex_(self) -> str:
        return self.render("latex")


def table(
    records: pd.DataFrame | str | Path,
    *,
    rows: _Names = (),
    columns: _Names = (),
    methods: _Names = (),
    tasks: _Names = (),
    metrics: _Names = (),
    baseline: str | None = None,
    ranks: bool = False,
) -> NotebookTable:
    """The table that `mimbench table` prints.

    Args:
        records: a results folder, or a frame of `load_records` or a selection of its rows.
        rows, columns, methods, tasks, metrics: as for `summary`.
        baseline: a method, or one of its settings ("simmim:method.mask_ratio=0.6"); adds columns of differences from
            it, paired by seed.
        ranks: add the mean rank over tasks.

    Raises:
        InputError: there are no records, a record is there twice, or an unknown name.
    """
    of_baseline = Baseline.parse(baseline) if baseline else None
    choice = replace(_choice(rows, columns, methods, tasks, metrics), baseline=of_baseline, ranks=ranks)
    tidy = records if isinstance(records, pd.DataFrame) else load_records(records, choice.paths, earlier_epochs=True)
    _check(tidy)
    return NotebookTable(build_comparisons(tidy, choice, NAMES))


def _choice(rows: _Names, columns: _Names, methods: _Names, tasks: _Names, metrics: _Names) -> Choice:
    def several(names: _Names) -> tuple[str, ...]:
        return (names,) if isinstance(names, str) else tuple(names)

    return Choice(several(rows), several(columns), several(metrics), several(methods), several(tasks))


def _check(records: pd.DataFrame) -> None:
    """Raise InputError if a frame is not made of rows of `load_records`, each once."""
    missing = [name for name in COLUMNS if name not in records]
    if missing:
        raise InputError(f"the frame has no column {missing[0]!r}; select rows of load_records, with all columns")
    if records.duplicated(["id", "metric"]).any():
        raise InputError('the frame has records twice; frame.drop_duplicates(["id", "metric"]) keeps each once')


def _long(scores: ScoreTable, protocols: Mapping[str, str]) -> pd.DataFrame:
    """One row per score, in the order of the table."""
    fields = (*scores.row_fields, *scores.column_fields)
    lines = []
    for row in scores.row_keys:
        for column in scores.column_keys:
            score = scores.scores.get((row, column))
            if score:
                values = dict(zip(fields, (*row, *column), strict=True))
                values["protocol"] = protocols[values["protocol"]]
                lines.append({**values, **score.summary.as_json()})
    return pd.DataFrame(lines)


def _wide(scores: ScoreTable, protocols: Mapping[str, str]) -> pd.DataFrame:
    """Means by row and column, in the order of the table."""
    means = [
        [score.summary.mean if (score := scores.scores.get((row, column))) else None for column in scores.column_keys]
        for row in scores.row_keys
    ]
    index = _index(scores.row_fields, scores.row_keys, protocols)
    columns = _index(scores.column_fields, scores.column_keys, protocols)
    return pd.DataFrame(means, index=index, columns=columns, dtype=float)


def _index(fields: Fields, keys: Sequence[Key], protocols: Mapping[str, str]) -> pd.Index:
    """The keys of rows or columns as an index, missing values as "". A protocol is left out if it separates no two."""
    named = [dict(zip(fields, key, strict=True)) for key in keys]
    shown = [name for name in fields if name != "protocol"]
    if len({tuple(key[name] for name in shown) for key in named}) < len(keys):
        shown = list(fields)
        named = [{**key, "protocol": protocols[key["protocol"]]} for key in named]
    values = [["" if key[name] is None else key[name] for key in named] for name in shown]
    return pd.Index(values[0], name=shown[0]) if len(shown) == 1 else pd.MultiIndex.from_arrays(values, names=shown)
