"""Comparison tables of records. Only the seeds of one setting are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from mimbench.recipe import AT_EPOCH, AT_STEP
from mimbench.report.scores.ablations import split_ablations
from mimbench.report.scores.choice import ALL_METRICS, Choice
from mimbench.report.scores.collect import ScoreTable, collect_scores, filter_rows
from mimbench.report.scores.fields import format_value
from mimbench.report.scores.names import KEYS, Names
from mimbench.report.scores.score import Key, Score
from mimbench.report.scores.statistics import LEVEL, Verdict, best_and_next
from mimbench.report.tables.extra_columns import baseline_column, published_column, rank_column
from mimbench.report.tables.sample_intervals import describe_spread, interval_of
from mimbench.report.tables.table import Cell, Column, Mark, Table, mark_cells
from mimbench.report.tables.values import Mean

_FIELDS_OF_A_SEED = {"seed", "checkpoint", "weights_sha256", "id", "file"}
"""Fields that differ between the seeds of one setting."""
_HASH_LENGTH = 6
"""Characters of a pretraining's hash that are shown."""


def build_comparisons(tidy: pd.DataFrame, choice: Choice, names: Names = KEYS) -> list[Table]:
    """The comparison of a frame, and a second table if some settings were measured on fewer tasks.

    Raises:
        InputError: as `build_comparison`.
    """
    main, ablations = split_ablations(tidy, choice)
    tables = [build_comparison(main, choice, names)]
    if not ablations.empty:
        # The rows are chosen already. A baseline and ranks belong to the comparison.
        metrics = tuple(
            name for name in choice.metrics if choice.metrics == ALL_METRICS or name in set(ablations["metric"])
        )
        of_ablations = replace(choice, methods=(), tasks=(), metrics=metrics, baseline=None, ranks=False)
        table = build_comparison(ablations, of_ablations, names)
        tables.append(replace(table, title="Ablations: settings that were measured on fewer tasks"))
    return tables


def build_comparison(tidy: pd.DataFrame, choice: Choice | None = None, names: Names = KEYS) -> Table:
    """The table of a frame (see `load_records`).

    By default a row is a method with its varied settings, a column a metric of a task under one protocol. A cell is
    "mean ± std over seeds (n)". Seeds are averaged only if everything else that shaped the weights is equal: fields
    that separate settings are added to the chosen ones. Scores of different protocols never share a column, or a row
    if columns are not tasks. Of comparable scores the best mean is marked, and all that `best_and_next` does not
    distinguish from it. Controls come first and are not marked.

    Raises:
        InputError: nothing chosen, or an unknown name.
    """
    choice = choice or Choice()
    chosen = filter_rows(tidy, choice)
    if choice.baseline:
        choice.baseline.check(chosen)
    table = build_table(collect_scores(chosen, choice), choice, names)
    remarks, advice = _remark_on_early_records(tidy, choice, chosen)
    return replace(table, remarks=(*table.remarks, *remarks), advice=advice)


def build_table(scores: ScoreTable, choice: Choice, names: Names = KEYS) -> Table:
    """The table of scores that are collected already."""
    cells, verdicts = _score_cells(scores, choice)
    columns, columns_of_cells = _label_columns(scores, names)

    def add(column: Column, column_cells: list[Cell]) -> None:
        columns.append(column)
        columns_of_cells.append(column_cells)

    for key, title, notes in _titles(scores, names):
        parts = ("mean", "low", "high", "n") if choice.interval else ("mean", choice.spread, "n")
        add(Column(title, parts, notes), [cells[row, key] for row in scores.row_keys])
        column = scores.column(key)
        if choice.baseline:
            all_scores = list(scores.scores.values())
            differences = baseline_column(choice.baseline, title, column, all_scores, names, covers=choice.interval)
            if differences:
                add(*differences)
        if choice.published:
            add(*published_column(title, column))
    if choice.ranks:
        add(*rank_column([scores.column(key) for key in scores.column_keys], scores.column_fields))
    rows = tuple(zip(*columns_of_cells, strict=True))
    controls = scores.controls if scores.controls < len(scores.row_keys) else 0
    remarks = _remarks(cells, scores, choice, verdicts, names)
    return Table(tuple(columns), rows, remarks=remarks, controls=controls)


def _score_cells(scores: ScoreTable, choice: Choice) -> tuple[dict[tuple[Key, Key], Cell], list[Verdict]]:
    """A cell per row and column with its mark, and the verdict of each comparison."""
    verdicts = []
    cells = {(row, column): Cell() for row in scores.row_keys for column in scores.column_keys}
    comparisons: dict[Key, list[tuple[Key, Key]]] = {}
    for place in cells:
        score = scores.scores.get(place)
        if score is None:
            continue
        cells[place] = _score_cell(score, choice)
        if not score.problem:
            comparisons.setdefault(_comparison_of(score, place[1], scores), []).append(place)
    for places in comparisons.values():
        # Controls do not compete with methods, and earlier epochs do not compete with the last one.
        methods = [place for place in places if not scores.scores[place].is_control] or places
        competing = [place for place in methods if not scores.scores[place].is_early] or methods
        compared = [scores.scores[place] for place in competing]
        verdict = best_and_next([score.values for score in compared], bool(compared[0].shared["higher_is_better"]))
        marks: dict[Mark, tuple[int, ...]] = {"best": verdict.best, "similar": verdict.similar}
        marked = mark_cells([cells[place] for place in competing], marks)
        cells |= dict(zip(competing, marked, strict=True))
        verdicts.append(verdict)
    return cells, verdicts


def _score_cell(score: Score, choice: Choice) -> Cell:
    mean = Mean(score.summary, score.shared["unit"], choice.spread, is_in_range=not score.problem)
    if choice.interval:
        mean = replace(mean, has_interval=True, interval=interval_of(score, choice.interval))
    return Cell(mean, notes=(score.problem,) if score.problem else ())


def _comparison_of(score: Score, column: Key, scores: ScoreTable) -> Key:
    """Equal for the scores that compare: one task, metric and protocol, and one column if columns are metrics."""
    key: Key = (score.shared["task"], score.shared["metric"], score.shared["protocol"])
    if _is_per_seed(scores):  # the seeds of one method do not compete
        key = (*key, score.shared["seed"])
    return (column, *key) if _has_metric_columns(scores) else key


def _has_metric_columns(scores: ScoreTable) -> bool:
    return {"task", "metric"} <= set(scores.column_fields)


def _is_per_seed(scores: ScoreTable) -> bool:
    """Whether each score is of one seed."""
    return bool(_FIELDS_OF_A_SEED & {*scores.row_fields, *scores.column_fields})


def _label_columns(scores: ScoreTable, names: Names) -> tuple[list[Column], list[list[Cell]]]:
    """A column per field of the rows. The protocol has one only if a task has several."""
    tasks = {score.shared["task"] for score in scores.scores.values()}
    columns, cells = [], []
    for index, name in enumerate(scores.row_fields):
        values = [row[index] for row in scores.row_keys]
        if name != "protocol":
            columns.append(Column(names.field(name)))
            cells.append([Cell(_label(name, value, names)) for value in values])
        elif len(scores.labels) > len(tasks):
            columns.append(Column(names.field(name)))
            cells.append([_protocol_cell(*scores.labels[value]) for value in values])
    return columns, cells


def _protocol_cell(label: str, note: str) -> Cell:
    return Cell(label, notes=(note,) if note else ())


def _label(name: str, value: Any, names: Names) -> str | None:
    """A field's value as the field's column shows it; None if it is missing."""
    if value is None or value == "":
        return None
    text = format_value(value)
    return text[:_HASH_LENGTH] if name == "pretraining" else names.value(name, text)


def _titles(scores: ScoreTable, names: Names) -> list[tuple[Key, str, tuple[str, ...]]]:
    """(column, title, footnotes). The protocol is in the title if two titles are equal without it."""
    bare = [_title(scores, key, names) for key in scores.column_keys]
    titles = []
    for key, title in zip(scores.column_keys, bare, strict=True):
        notes: tuple[str, ...] = ()
        if scores.column_fields[-1] == "protocol":
            label, note = scores.labels[key[-1]]
            title = f"{title} ({label})" if bare.count(title) > 1 else title
            notes = (note,) if note else ()
        titles.append((key, title, notes))
    return titles


def _title(scores: ScoreTable, key: Key, names: Names) -> str:
    """A column's title without its protocol: "k-NN (k = 20), method.x=3"."""
    values = dict(zip(scores.column_fields, key, strict=True))
    values.pop("protocol", None)
    parts = []
    if "metric" in values:
        unit = next(score.shared["unit"] for (_, column), score in scores.scores.items() if column == key)
        metric = str(values.pop("metric"))
        title = names.metric(str(values.pop("task")), metric) if "task" in values else metric
        parts.append(title + (f" [{unit}]" if unit != "percent" else ""))
    present = {name: value for name, value in values.items() if value not in (None, "")}
    if not parts and not present:
        present = values  # a title is not empty: missing values are shown as such
    return ", ".join([*parts, *(_name_value(name, value, names) for name, value in present.items())])


def _name_value(name: str, value: Any, names: Names) -> str:
    """A field's value in a title or footnote. Numbers and settings need their field's name."""
    text = _label(name, value, names) or "-"
    is_plain = "." not in name and not isinstance(value, int | float)
    return text if is_plain else f"{names.field(name)}={text}"


def _remarks(
    cells: Mapping[tuple[Key, Key], Cell],
    scores: ScoreTable,
    choice: Choice,
    verdicts: Sequence[Verdict],
    names: Names,
) -> tuple[str, ...]:
    """One line that explains the whole table."""
    remarks = [
        _remark_on_what_all_share(scores, names),
        _remark_on_marks(cells, scores, verdicts),
        _remark_on_units(scores),
        *describe_spread({score.summary.n for score in scores.scores.values()}, choice),
    ]
    line = "; ".join(filter(None, remarks))
    return (line,) if line else ()


def _remark_on_what_all_share(scores: ScoreTable, names: Names) -> str:
    """Task and metric if neither rows nor columns show them."""
    shared = next(iter(scores.scores.values())).shared
    missing = [name for name in ("task", "metric") if name not in (*scores.row_fields, *scores.column_fields)]
    if len(missing) == 2:
        return f"all: {names.metric(str(shared['task']), str(shared['metric']))}"
    return f"all: {names.value(missing[0], str(shared[missing[0]]))}" if missing else ""


def _remark_on_marks(cells: Mapping[tuple[Key, Key], Cell], scores: ScoreTable, verdicts: Sequence[Verdict]) -> str:
    marked = {place for place, cell in cells.items() if cell.mark}
    if not marked:
        return ""
    remark = "{best} of each " + ("column" if _has_metric_columns(scores) else "metric and protocol")
    if _is_per_seed(scores):
        remark += ", per seed"
    early = {place for place, score in scores.scores.items() if score.is_early}
    if early and early != set(scores.scores):
        in_steps = {scores.scores[place].shared["at_step"] is not None for place in early}
        units = " or ".join(unit for unit, is_steps in (("epochs", False), ("steps", True)) if is_steps in in_steps)
        remark += f", without earlier {units}"
        if early & marked:  # a comparison of earlier epochs or steps only
            remark += " if there is a last one"
    if any(verdict.tested for verdict in verdicts):
        remark += f"; {{similar}}: not shown to be worse than the best (paired t over seeds, Holm, {1 - LEVEL:.2g})"
        if any(verdict.untested for verdict in verdicts):
            remark += "; unmarked with fewer than two seeds in common with the best: not tested"
    if scores.controls and any(not score.is_control for score in scores.scores.values()):
        remark += "; controls: above, not marked"
    return remark


def _remark_on_units(scores: ScoreTable) -> str:
    units = {score.shared["unit"] for score in scores.scores.values()}
    if "percent" not in units:
        return ""
    return "in percent" + (" unless a unit is given" if len(units) > 1 else "")


def _remark_on_early_records(
    tidy: pd.DataFrame, choice: Choice, chosen: pd.DataFrame
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(how many records of earlier epochs the table leaves out, which option shows them)."""
    if choice.shows_epochs:
        return (), ()
    all_epochs = filter_rows(tidy, replace(choice, epochs=True))
    count = all_epochs["id"].nunique() - chosen["id"].nunique()
    if not count:
        return (), ()
    by_column = "method" in choice.column_fields
    fields = choice.column_fields if by_column else choice.row_fields or ("method",)
    option = "--columns" if by_column else "--rows"
    left_out = all_epochs[~all_epochs["id"].isin(chosen["id"])]
    paths = [AT_EPOCH] * bool(left_out["pretrain_epochs"].notna().any())
    paths += [AT_STEP] * bool(left_out["step_budget"].notna().any())
    shown, units = ",".join([*fields, *paths]), " or ".join("epochs" if path == AT_EPOCH else "steps" for path in paths)
    records = f"{count} record{'s' * (count > 1)} of earlier {units} of these pretrainings"
    return (f"not shown: {records}",), (f"{option} {shown} shows earlier {units}",)
