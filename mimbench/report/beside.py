"""Columns beside a column of scores: differences to a baseline, published numbers, and the rank over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mimbench.report.statistics import LEVEL, Interval, mean_ranks, paired_difference
from mimbench.report.table import Cell, Column

if TYPE_CHECKING:
    from mimbench.report.grid import Score

_KINDS = {"bootstrap": "bootstrap over seeds", "t": "Student's t, the seeds being too few for a bootstrap"}
_OF_THE_METHOD = ("method", "set", "pretraining", "checkpoint", "id")
"""Fields in which a method and its baseline may differ."""


def baseline_column(
    baseline: str, title: str, scores: Sequence[Score | None], everything: Sequence[Score]
) -> list[tuple[Column, list[Cell]]]:
    """Differences to the baseline's scores of the same task, metric, protocol and encoder, paired by seed.

    No column where all scores are the baseline's own.
    """
    if all(score is None or score.first["method"] == baseline for score in scores):
        return []
    cells, kinds = [], set()
    for score in scores:
        if score is None or score.first["method"] == baseline:
            cells.append(Cell())
            continue
        partner = _partner(baseline, score, everything)
        if isinstance(partner, str):
            cells.append(Cell(notes=(partner,)))
            continue
        difference = paired_difference(score.values, partner.values)
        if difference is None:
            cells.append(Cell(notes=(f"no seed in common with {baseline}",)))
            continue
        interval = difference.interval
        digits = 1 if score.first["unit"] == "percent" else 3
        text = f"{difference.mean:+.{digits}f}".replace("-", "−")
        if interval:
            kinds.add(interval.kind)
            text += f" {_bracket(interval, digits)}"
        numbers = (difference.mean, *((interval.low, interval.high) if interval else (None, None)), difference.n)
        cells.append(Cell(f"{text} (n={difference.n})", numbers))
    told = [f"[ ]: {LEVEL:.0%} interval of the mean, {_KINDS[kind]}".replace("%", " %") for kind in sorted(kinds)]
    note = "; ".join([f"difference to {baseline}, paired by seed", *told])
    return [(Column(f"Δ {baseline}", ("mean", "low", "high", "n"), (note,), of=title), cells)]


def _partner(baseline: str, score: Score, everything: Sequence[Score]) -> Score | str:
    """The baseline's score to compare with, or why there is none."""
    same = [
        other
        for other in everything
        if other.first["method"] == baseline
        and all(other.first[name] == score.first[name] for name in ("task", "metric", "protocol", "backbone"))
    ]
    if not same:
        return f"{baseline} was not measured with this encoder under this protocol"

    def alike(other: Score) -> int:
        names = [name for name in score.fields if name not in _OF_THE_METHOD]
        return sum(other.fields.get(name) == score.fields[name] for name in names)

    closest = max(map(alike, same))
    found = [other for other in same if alike(other) == closest]
    return found[0] if len(found) == 1 else f"{baseline} has {len(found)} settings to compare with"


def published_column(title: str, scores: Sequence[Score | None]) -> tuple[Column, list[Cell]]:
    """The authors' own number under the same protocol, and ours minus it; else a footnote that says why not."""
    from mimbench.report.published import find, own_numbers, reference  # pydantic, for those who ask for it

    cells = []
    for score in scores:
        if score is None:
            cells.append(Cell())
            continue
        match = find(score.first, own_numbers())
        if match.number is None:
            cells.append(Cell(notes=(f"not compared: {match.reason}",)))
            continue
        value = match.number["value"]
        difference = score.summary.mean - value
        text = f"{value:.1f} ({difference:+.1f})".replace("-", "−")
        cells.append(Cell(text, (value, difference), notes=(reference(match.number),)))
    return Column("published", ("value", "difference"), ("published (ours minus published)",), of=title), cells


def rank_column(columns: Sequence[Sequence[Score | None]]) -> tuple[Column, list[Cell]]:
    """Each row's mean rank over the columns of primary metrics, for rows that have them all."""
    scores: dict[str, Mapping[str, Mapping[int, float]]] = {}
    higher = {}
    for index, column in enumerate(columns):
        present = {str(row): score for row, score in enumerate(column) if score is not None}
        first = next(iter(present.values())).first
        if first["primary"]:
            scores[str(index)] = {row: score.values for row, score in present.items()}
            higher[str(index)] = bool(first["higher_is_better"])
    ranks = {rank.name: rank for rank in mean_ranks(scores, higher)}
    cells = []
    for row in range(len(columns[0])):
        rank = ranks.get(str(row))
        if rank is None:
            cells.append(Cell(notes=("no rank: a task is missing",)))
            continue
        interval = rank.interval
        text = f"{rank.mean:.1f}" + (f" {_bracket(interval, 1)}" if interval else "")
        cells.append(Cell(text, (rank.mean, *((interval.low, interval.high) if interval else (None, None)))))
    told = f"; [ ]: {LEVEL:.0%} interval, bootstrap over seeds".replace("%", " %")
    note = f"mean rank over {len(scores)} primary metrics" + (
        told if any(rank.interval for rank in ranks.values()) else "; no interval: a score has one seed"
    )
    return Column("mean rank", ("mean", "low", "high"), (note,)), cells


def _bracket(interval: Interval, digits: int) -> str:
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]".replace("-", "−")
