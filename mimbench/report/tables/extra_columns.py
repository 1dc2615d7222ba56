"""Columns beside a column of scores: differences to a baseline, published numbers, and the rank over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mimbench.errors import InputError
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.score import Score
from mimbench.report.scores.statistics import LEVEL_TEXT, mean_ranks, paired_difference
from mimbench.report.tables.table import Cell, Column


def baseline_column(
    baseline: Baseline, title: str, scores: Sequence[Score | None], everything: Sequence[Score]
) -> list[tuple[Column, list[Cell]]]:
    """Differences to the baseline's scores of the same task, metric, protocol and encoder, paired by seed.

    No column where there is nothing to compare: all scores are the baseline's own.
    """
    partners = [None if score is None else baseline.partner(score, everything) for score in scores]
    if all(partner is None or partner is score for partner, score in zip(partners, scores, strict=True)):
        return []
    cells, has_interval = [], False
    for score, partner in zip(scores, partners, strict=True):
        if score is None or partner is None or partner is score:
            cells.append(Cell())
            continue
        reason = partner if isinstance(partner, str) else partner.problem or score.problem
        if isinstance(partner, str) or reason:
            cells.append(Cell(notes=(reason,)))
            continue
        difference = paired_difference(score.values, partner.values)
        if difference is None:
            cells.append(Cell(notes=(f"no seed in common with {baseline.text}",)))
            continue
        interval = difference.interval
        digits = 1 if score.shared["unit"] == "percent" else 3
        text = f"{difference.mean:+.{digits}f}".replace("-", "−")
        if interval:
            has_interval = True
            text += f" {_bracket(interval.low, interval.high, digits)}"
        numbers = (difference.mean, *((interval.low, interval.high) if interval else (None, None)), difference.n)
        cells.append(Cell(f"{text} (n={difference.n})", numbers))
    told = [f"[ ]: {LEVEL_TEXT} interval of the mean (Student's t)"] if has_interval else []
    to = baseline.describe([partner for partner in partners if partner and not isinstance(partner, str)], everything)
    note = "; ".join([f"difference to {to}, paired by seed", *told])
    return [(Column(f"Δ {baseline.text}", ("mean", "low", "high", "n"), (note,), of=title), cells)]


def published_column(title: str, scores: Sequence[Score | None]) -> tuple[Column, list[Cell]]:
    """The authors' own number under the same protocol, and ours minus it; else a footnote that says why not."""
    from mimbench.report.published.numbers import (  # pydantic, for those who ask for it
        LAST_EPOCH,
        find_published,
        format_source,
        load_author_numbers,
    )

    cells = []
    for score in scores:
        if score is None:
            cells.append(Cell())
            continue
        if score.problem:
            cells.append(Cell(notes=(f"not compared: {score.problem}",)))
            continue
        match = find_published(score.shared, load_author_numbers())
        if match.number is None:
            cells.append(Cell(notes=(f"not compared: {match.reason}",)))
            continue
        value = match.number["value"]
        difference = score.summary.mean - value
        text = f"{value:.1f} ({difference:+.1f})".replace("-", "−")
        cells.append(Cell(text, (value, difference), notes=(format_source(match.number),)))
    note = f"published (ours minus published); {LAST_EPOCH}"
    return Column("published", ("value", "difference"), (note,), of=title), cells


def rank_column(columns: Sequence[Sequence[Score | None]], fields: Sequence[str]) -> tuple[Column, list[Cell]]:
    """Each row's mean rank over the columns of primary metrics, for rows that have them all.

    Earlier epochs of pretrainings are no contenders where there are ends. fields: of the columns.

    Raises:
        InputError: columns are not tasks.
    """
    if "task" not in fields or "method" in fields:
        raise InputError("--rank ranks rows over columns of tasks; leave --columns out, or give --columns task")
    # Earlier epochs compete with each other only: they have no rank if the table has any last epoch.
    has_last_epochs = any(score and not score.is_early for column in columns for score in column)
    scores: dict[str, Mapping[str, Mapping[int, float]]] = {}
    higher = {}
    for index, column in enumerate(columns):
        present = {
            str(row): score
            for row, score in enumerate(column)
            if score and not score.problem and not (has_last_epochs and score.is_early)
        }
        first = next(iter(present.values())).shared if present else None
        if first and first["primary"]:
            scores[str(index)] = {row: score.values for row, score in present.items()}
            higher[str(index)] = bool(first["higher_is_better"])
    ranks = {rank.name: rank for rank in mean_ranks(scores, higher)}
    cells = []
    for row in range(len(columns[0])):
        rank = ranks.get(str(row))
        if rank is None:
            there = [score for score in (column[row] for column in columns) if score]
            excluded = has_last_epochs and all(score.is_early for score in there)
            why = "an earlier epoch of a pretraining" if excluded else ""
            why = why or next((score.problem for score in there if score.problem), "a task is missing")
            cells.append(Cell(notes=(f"no rank: {why}",)))
            continue
        text = f"{rank.mean:.1f}" + (f" {_bracket(*rank.interval, 1)}" if rank.interval else "")
        cells.append(Cell(text, (rank.mean, *(rank.interval or (None, None)))))
    note = f"mean rank over {len(scores)} primary metric{'s' * (len(scores) != 1)}"
    if any(rank.interval for rank in ranks.values()):
        seeds = sorted({len(values) for of in scores.values() for row, values in of.items() if row in ranks})
        count = f"n={seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else "")
        note += (
            f"; [ ]: what the scores' own {LEVEL_TEXT} intervals (Student's t, {count}) leave open: "
            f"of two that overlap, either may lead; {LEVEL_TEXT} each, not all at once"
        )
    elif ranks:
        note += "; no interval: a score has one seed"
    return Column("mean rank", ("mean", "low", "high"), (note,)), cells


def _bracket(low: float, high: float, digits: int) -> str:
    return f"[{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")
