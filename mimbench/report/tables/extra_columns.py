"""Columns that add to a column of scores: differences from a baseline, published numbers; and the mean rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mimbench.errors import InputError
from mimbench.report.scores.baseline import Baseline
from mimbench.report.scores.fields import Fields
from mimbench.report.scores.names import KEYS, Names
from mimbench.report.scores.ranks import Rank, mean_ranks
from mimbench.report.scores.sample_error import COVERS, IMAGES
from mimbench.report.scores.score import Score
from mimbench.report.scores.statistics import LEVEL, LEVEL_TEXT, paired_difference
from mimbench.report.tables.sample_intervals import compare_single_seeds, with_interval
from mimbench.report.tables.table import Cell, Column
from mimbench.report.tables.values import Difference, MeanRank, PublishedAndDifference

_EMPTY = Cell()


def baseline_column(
    baseline: Baseline,
    title: str,
    scores: Sequence[Score | None],
    all_scores: Sequence[Score],
    names: Names = KEYS,
    *,
    covers: Sequence[str] = (),
) -> tuple[Column, list[Cell]] | None:
    """Differences from the baseline's scores, paired by seed; None if all scores are the baseline's own.

    Args:
        baseline: see `Baseline.partner` for the scores that differences are taken from.
        title: of the column of scores.
        scores: one per row; None: not measured.
        all_scores: of the table.
        names: what methods are called.
        covers: what intervals cover, as `Choice.interval`; (): seeds.

    Raises:
        InputError: they are to cover test samples, and a record has no values of them.
    """
    partners = [None if score is None else baseline.partner(score, all_scores) for score in scores]
    if all(partner is None or partner is score for partner, score in zip(partners, scores, strict=True)):
        return None
    cells = [
        _EMPTY
        if score is None or partner is None or partner is score
        else _difference_cell(baseline, score, partner, names, covers)
        for score, partner in zip(scores, partners, strict=True)
    ]
    reference = baseline.describe([partner for partner in partners if isinstance(partner, Score)], all_scores)
    note = f"difference from {names.baseline(reference)}, paired by seed"
    if any(isinstance(cell.content, Difference) and cell.content.summary.interval for cell in cells):
        paired = " and by image" if IMAGES in covers else ""
        covered = COVERS[",".join(covers)] if covers else f"{LEVEL_TEXT} interval of the mean (Student's t)"
        note += f"{paired}; [ ]: {covered}"
    return Column(f"Δ {names.baseline(baseline.text)}", ("mean", "low", "high", "n"), (note,), main=title), cells


def _difference_cell(
    baseline: Baseline, score: Score, partner: Score | str, names: Names, covers: Sequence[str]
) -> Cell:
    """partner: the baseline's score, or why there is none, which begins with the baseline."""
    if isinstance(partner, str):
        return Cell(notes=(names.baseline(partner),))
    if problem := partner.problem or score.problem:
        return Cell(notes=(problem,))
    difference = paired_difference(score.values, partner.values)
    if difference is None:
        return Cell(notes=(f"no seed in common with {names.baseline(baseline.text)}",))
    notes: tuple[str, ...] = ()
    if IMAGES in covers and (test := compare_single_seeds(score, partner)):
        notes = (
            f"McNemar's exact test: p = {test.p_value:.2g}; {test.first_only} images are right here only, "
            f"{test.second_only} with {names.baseline(baseline.text)} only",
        )
    return Cell(Difference(with_interval(difference, score, partner, covers), score.shared["unit"]), notes=notes)


def published_column(title: str, scores: Sequence[Score | None]) -> tuple[Column, list[Cell]]:
    """The authors' own number under the same protocol, and ours minus it; else a footnote that says why not.

    Args:
        title: of the column of scores.
        scores: one per row; None: not measured.
    """
    from mimbench.report.published.numbers import LAST_EPOCH  # imports pydantic, which takes long

    note = f"published (ours minus published); {LAST_EPOCH}"
    cells = [_EMPTY if score is None else _compared_cell(score) for score in scores]
    return Column("published", ("value", "difference"), (note,), main=title), cells


def _compared_cell(score: Score) -> Cell:
    from mimbench.report.published.numbers import find_published, format_source, load_author_numbers

    if score.problem:
        return Cell(notes=(f"not compared: {score.problem}",))
    match = find_published(score.shared, load_author_numbers(score.shared["method"]))
    if match.number is None:
        return Cell(notes=(f"not compared: {match.reason}",))
    value = match.number["value"]
    content = PublishedAndDifference(value, score.summary.mean - value)
    return Cell(content, notes=(format_source(match.number),))


def rank_column(columns: Sequence[Sequence[Score | None]], column_fields: Fields) -> tuple[Column, list[Cell]]:
    """Each row's mean rank over the columns of primary metrics, for rows that have all of them.

    Earlier epochs have no rank if the table has any last epoch: they do not compete with it.

    Args:
        columns: the table's columns of scores.
        column_fields: their fields.

    Raises:
        InputError: columns are not tasks.
    """
    if "task" not in column_fields or "method" in column_fields:
        raise InputError("--rank ranks rows over columns of tasks; leave --columns out, or give --columns task")
    has_last_epochs = any(score and not score.is_early for column in columns for score in column)

    # By column, then by row: rows and columns are named by their index.
    values: dict[str, Mapping[str, Mapping[int, float]]] = {}
    higher_is_better = {}
    for index, column in enumerate(columns):
        competing = {
            str(row): score
            for row, score in enumerate(column)
            if score and not score.problem and not score.is_control and not (has_last_epochs and score.is_early)
        }
        any_score = next(iter(competing.values()), None)
        if any_score and any_score.shared["primary"]:
            values[str(index)] = {row: score.values for row, score in competing.items()}
            higher_is_better[str(index)] = bool(any_score.shared["higher_is_better"])
    ranks = {rank.name: rank for rank in mean_ranks(values, higher_is_better)}

    cells = []
    for row in range(len(columns[0])):
        rank = ranks.get(str(row))
        if rank is None:
            measured = [score for column in columns if (score := column[row])]
            cells.append(Cell(notes=(f"no rank: {_why_no_rank(measured, has_last_epochs)}",)))
        else:
            cells.append(Cell(MeanRank(rank)))
    return Column("mean rank", ("mean", "low", "high"), (_rank_note(values, ranks),)), cells


def _why_no_rank(scores: Sequence[Score], has_last_epochs: bool) -> str:
    if scores and all(score.is_control for score in scores):
        return "a control"
    if has_last_epochs and all(score.is_early for score in scores):
        return "an earlier epoch of a pretraining"
    return next((score.problem for score in scores if score.problem), "a task is missing")


def _rank_note(values: Mapping[str, Mapping[str, Mapping[int, float]]], ranks: Mapping[str, Rank]) -> str:
    note = f"mean rank over {len(values)} primary metric{'s' * (len(values) != 1)}"
    if any(rank.interval for rank in ranks.values()):
        counts = sorted({len(seeds) for rows in values.values() for row, seeds in rows.items() if row in ranks})
        n = f"n={counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
        return (
            f"{note}; [ ]: range of mean ranks that paired t tests over seeds leave open (Holm over the rivals, "
            f"{1 - LEVEL:.2g}; {n}): of two that no test distinguishes, either may be the better one"
        )
    return f"{note}; no interval: a score has one seed" if ranks else note
