"""The numbers of a table as text, the same in every format that people read."""

from __future__ import annotations

from dataclasses import replace

from mimbench.report.tables.table import Cell, Table
from mimbench.report.tables.values import (
    Difference,
    Mean,
    MeanAndDifference,
    MeanRank,
    PublishedAndDifference,
    PublishedDifference,
    PublishedNumber,
)

EMPTY = "-"


def cell_text(cell: Cell, shows_n: bool = True) -> str:
    """A cell's content as text, without mark and footnotes.

    Args:
        cell: a cell of any column.
        shows_n: whether "(n=3)" follows a number.
    """
    content = cell.content
    if content is None:
        return EMPTY
    if isinstance(content, str):
        return content
    n = f" (n={content.n})" if shows_n else ""
    match content:
        case Mean():
            return _mean_text(content, n)
        case Difference():
            digits = _digits(content.unit)
            interval = content.summary.interval
            limits = f" {_interval_text(interval.low, interval.high, digits)}" if interval else ""
            text = f"{content.summary.mean:+.{digits}f}{limits}{n}"
        case MeanRank():
            interval_of_ranks = content.rank.interval
            limits = f" {_interval_text(*interval_of_ranks, 1)}" if interval_of_ranks else ""
            text = f"{content.rank.mean:.1f}{limits}"
        case PublishedNumber():
            # As printed in the paper: with one decimal, or with all if there are more.
            has_one_decimal = round(content.value, 1) == content.value
            text = f"{content.value:.1f}" if has_one_decimal else f"{content.value:g}"
            text += "×" if content.unit == "times" else ""
        case PublishedDifference():
            rounded = round(content.difference, 1)
            text = f"{rounded:+.1f}" if rounded else "0.0"
        case PublishedAndDifference():
            text = f"{content.value:.1f} ({content.difference:+.1f})"
        case MeanAndDifference():
            text = f"{_mean_text(Mean(content.summary), n)}, {content.difference:+.1f}"
    return text.replace("-", "−")


def factor_out_n(table: Table) -> tuple[Table, bool]:
    """The table, and whether its cells show n. If all means have the same n, a remark says it, and they show none.

    So it is if there are means of one seed besides: they have no ±, and the remark says so.
    """
    contents = [cell.content for row in table.rows for cell in row]
    numbers = [content.n for content in contents if content is not None and not isinstance(content, str)]
    counts = {n for n in numbers if n is not None}
    several = counts - {1}
    has_single_difference = any(isinstance(content, Difference) and content.n == 1 for content in contents)
    if not counts or len(several) > 1 or (several and has_single_difference):
        return table, True
    first, *others = table.remarks or ("",)
    n = f"n = {max(counts)} " + ("with ±, 1 without" if several and 1 in counts else "throughout")
    return replace(table, remarks=("; ".join(filter(None, (first, n))), *others)), False


def _mean_text(mean: Mean, n: str) -> str:
    """n: what follows, such as " (n=3)"."""
    if not mean.is_in_range:
        return f"{mean.summary.mean:g}"
    digits = _digits(mean.unit)
    if mean.has_interval:
        limits = f" {_interval_text(mean.interval.low, mean.interval.high, digits)}" if mean.interval else ""
        return f"{mean.summary.mean:.{digits}f}{limits}{n}"
    if mean.width is None:
        return f"{mean.summary.mean:.{digits}f}{n}"
    return f"{mean.summary.mean:.{digits}f} ± {mean.width:.{digits}f}{n}"


def _digits(unit: str) -> int:
    """Decimals of a number: percent have one, losses and errors three."""
    return 1 if unit == "percent" else 3


def _interval_text(low: float, high: float, digits: int) -> str:
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
