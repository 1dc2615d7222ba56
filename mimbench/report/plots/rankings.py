"""Methods over several tasks: critical-difference diagrams and win rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mimbench.display import describe_method
from mimbench.report.plots.groups import Group, build_groups
from mimbench.report.plots.series import Mean, Series, short_names
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import INK, SMALL, wrap
from mimbench.report.scores.statistics import LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_METHODS, _LEAST_TASKS = 3, 2
_LINE = 0.16
"""Height of a name, inches."""


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over tasks (Demsar 2006, JMLR 7, 1-30)."""

    ranks: tuple[float, ...]
    tasks: int
    friedman: float
    """p value of Friedman's test that all methods are equal."""
    critical: float
    """Difference of mean ranks from which Nemenyi's test distinguishes two methods, at 1 - LEVEL."""


def critical_difference(source: Source, options: Options) -> Sheet:
    """Mean ranks on an axis; a bar joins methods that Nemenyi's test does not distinguish."""
    series, groups = _complete(source, options, "critical-difference")
    ranking = rank_methods([[group.means[entry].mean for entry in series] for group in groups], _directions(groups))
    few = " With fewer than five tasks the test rejects little." if ranking.tasks < 5 else ""
    note = (
        f"Mean ranks over {ranking.tasks} tasks (1 is best). Bars join methods whose ranks differ by less than the "
        f"critical difference of Nemenyi's test, {ranking.critical:.2f} ({1 - LEVEL:.2g}); Friedman's test: "
        f"p = {ranking.friedman:.2g}.{few}"
    )
    return Sheet([_diagram(series, ranking, options.width)], (), note, columns=1)


def rank_methods(scores: Sequence[Sequence[float]], higher_is_better: Sequence[bool]) -> Ranking:
    """Ranks of methods over tasks.

    Args:
        scores: by task, then by method.
        higher_is_better: by task.
    """
    from scipy.stats import chi2, rankdata, studentized_range

    tasks, count = len(scores), len(scores[0])
    of_tasks = [
        rankdata([-value if higher else value for value in values])
        for values, higher in zip(scores, higher_is_better, strict=True)
    ]
    ranks = tuple(float(sum(column)) / tasks for column in zip(*of_tasks, strict=True))
    statistic = 12 * tasks / (count * (count + 1)) * (sum(rank**2 for rank in ranks) - count * (count + 1) ** 2 / 4)
    quantile = float(studentized_range.ppf(LEVEL, count, math.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(count * (count + 1) / (6 * tasks))
    return Ranking(ranks, tasks, float(chi2.sf(statistic, count - 1)), critical)


def cliques(ranks: Sequence[float], critical: float) -> list[tuple[float, float]]:
    """(lowest, highest rank) of each largest set of methods whose ranks differ by less than `critical`."""
    ordered = sorted(ranks)
    spans: list[tuple[float, float]] = []
    for start, low in enumerate(ordered):
        high = max(rank for rank in ordered[start:] if rank - low < critical)
        if high > low and not (spans and spans[-1][1] >= high):
            spans.append((low, high))
    return spans


def win_rates(source: Source, options: Options) -> Sheet:
    """Share of the tasks and shared seeds in which the method of the row beats that of the column."""
    series, groups = _complete(source, options, "win-rates")
    rates = [[win_rate(one, other, groups) for other in series] for one in series]
    note = f"Percent of {len(groups)} tasks and their shared seeds in which the row beats the column; ties count half."
    return Sheet([_rates_plot(series, rates)], (), note, columns=1)


def win_rate(one: Series, other: Series, groups: Sequence[Group]) -> float | None:
    """Percent of tasks and shared seeds in which `one` is better; None if they share none, or are the same."""
    if one == other:
        return None
    wins = []
    for group in groups:
        sign = 1 if group.first["higher_is_better"] else -1
        ours, theirs = _by_seed(group.means[one]), _by_seed(group.means[other])
        for seed in sorted(set(ours) & set(theirs)):
            gap = sign * (ours[seed] - theirs[seed])
            wins.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
    return 100 * sum(wins) / len(wins) if wins else None


def _by_seed(mean: Mean) -> Mapping[int, float]:
    return {row["seed"]: float(row["value"]) for row in mean.rows}


def _complete(source: Source, options: Options, kind: str) -> tuple[list[Series], list[Group]]:
    """Methods without controls, and the tasks that all of them have: as many of both as the records allow."""
    groups, series = build_groups(source, options)
    methods = [entry for entry in series if not describe_method(entry.method).is_control]
    counts = {entry: sum(entry in group.means for group in groups) for entry in methods}
    blocks = []
    for least in sorted(set(counts.values())):
        shown = [entry for entry in methods if counts[entry] >= least]
        shared = [group for group in groups if all(entry in group.means for entry in shown)]
        if len(shown) >= _LEAST_METHODS and len(shared) >= _LEAST_TASKS:
            blocks.append((shown, shared))
    if not blocks:
        raise source.nothing_to_plot(
            kind,
            f"{_LEAST_METHODS} methods or more, without controls, on the same {_LEAST_TASKS} tasks or more",
            "mimbench run --method METHOD,METHOD,METHOD --task TASK,TASK",
        )
    return max(blocks, key=lambda block: len(block[0]) * len(block[1]))


def _directions(groups: Sequence[Group]) -> list[bool]:
    return [bool(group.first["higher_is_better"]) for group in groups]


def _diagram(series: Sequence[Series], ranking: Ranking, width: float) -> Plot:
    order = sorted(range(len(series)), key=lambda index: ranking.ranks[index])
    half, names = math.ceil(len(order) / 2), short_names(series)
    spans = cliques(ranking.ranks, ranking.critical)
    count, bars = len(series), 0.09 * (len(spans) + 1)
    height = 0.5 + bars + _LINE * half + 0.1
    margin = 1.05
    scale = (width - 2 * margin - 0.2) / (count - 1)

    def x_of(rank: float) -> float:
        return margin + (rank - 1) * scale

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set(xlim=(0, width - 0.2), ylim=(height, 0))
        level = 0.45
        axes.plot([x_of(1), x_of(count)], [level, level], color=INK, linewidth=0.8)
        step = max(1, math.ceil(0.18 / scale))
        for tick in range(1, count + 1, step):
            axes.plot([x_of(tick)] * 2, [level - 0.05, level], color=INK, linewidth=0.8)
            axes.text(x_of(tick), level - 0.07, str(tick), ha="center", va="bottom", fontsize=SMALL, color=INK)
        reach = min(ranking.critical, count - 1)
        axes.plot([x_of(1), x_of(1 + reach)], [0.16, 0.16], color=INK, linewidth=1.2)
        label = f"critical difference {ranking.critical:.2f}"
        axes.text(x_of(1 + reach) + 0.05, 0.16, label, ha="left", va="center", fontsize=SMALL, color=INK)
        for place, (low, high) in enumerate(spans):
            y = level + 0.09 * (place + 1)
            axes.plot([x_of(low) - 0.04, x_of(high) + 0.04], [y, y], color=INK, linewidth=2.2, solid_capstyle="round")
        for place, index in enumerate(order):
            is_left = place < half
            line = place if is_left else count - 1 - place
            y = level + bars + _LINE * (line + 0.5)
            entry, x = series[index], x_of(ranking.ranks[index])
            end = margin - 0.1 if is_left else width - 0.2 - margin + 0.1
            axes.plot([x, x, end], [level, y, y], color=entry.colour, linewidth=0.9)
            name = wrap(names[index], 18, 1)
            side = "right" if is_left else "left"
            axes.text(end + (-0.04 if is_left else 0.04), y, name, ha=side, va="center", fontsize=SMALL, color=INK)

    return Plot(draw, "", height, indent=0.0)


_CELL = 0.2
"""Inches that a cell must be wide to hold its number."""


def _rates_plot(series: Sequence[Series], rates: Sequence[Sequence[float | None]]) -> Plot:
    names = [wrap(name, 16, 2) for name in short_names(series)]

    def draw(axes: Axes) -> None:
        import numpy as np

        values = np.array([[math.nan if rate is None else rate for rate in row] for row in rates])
        image = axes.imshow(values, cmap="RdBu", vmin=0, vmax=100, aspect="auto")
        has_room = axes.get_window_extent().width / axes.figure.dpi / len(names) > _CELL
        if not has_room:
            bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.03, ticks=(0, 50, 100))
            bar.ax.tick_params(labelsize=SMALL, length=0)
            bar.ax.set_yticklabels(["0", "50", "100 %"])
            bar.outline.set_visible(False)
        for row, line in enumerate(rates):
            for column, rate in enumerate(line):
                if rate is not None and has_room:
                    ink = "white" if abs(rate - 50) > 35 else INK
                    axes.text(column, row, f"{rate:.0f}", ha="center", va="center", fontsize=SMALL, color=ink)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False)
        axes.tick_params(length=0)

    return Plot(draw, "", 0.9 + 0.24 * len(names), indent=0.6)
