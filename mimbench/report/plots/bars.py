"""Grouped bars over tasks: mean, interval, and each seed as a dot."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mimbench.report.plots.dot_rows import differences
from mimbench.report.plots.groups import Group, build_groups, chance_entries, draw_whisker, spread_dots
from mimbench.report.plots.series import describe_means, group_by
from mimbench.report.plots.sheet import Plot, Sheet, key
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import CHANCE_DASH, INK, clean, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR, _GROUP = 0.085, 0.62
"""Least widths of a bar and of a group's label, inches."""
_AXIS = 0.55
"""Room for the vertical axis and its labels, inches."""
_CHARACTER = 0.062
"""Width of a character of small text, inches."""
_WORD = 16
"""Characters of a task's name that are kept in one line."""
_WIDEST = 0.34
"""Of a bar, inches."""
_DOTS = 0.5
"""Share of a bar's width over which its seeds' dots lie."""


def bars(source: Source, options: Options) -> Sheet:
    """Scores as bars; with a baseline, differences from it as rows of dots."""
    groups, series = build_groups(source, options)
    if options.baseline:
        return differences(source, options, groups)
    plots = [_plot(panel, options.width) for panel in _panels(groups, options.width)]
    means = [mean for group in groups for mean in group.means.values()]
    several = any(len(mean.values) > 1 for mean in means)
    legend = [key(entry, line=False) for entry in series]
    legend += chance_entries((group.task, group.chance_name) for group in groups if group.chance is not None)
    return Sheet(plots, legend, f"{describe_means(means)}{' Dots: seeds.' if several else ''}", columns=1)


def _panels(groups: Sequence[Group], width: float) -> list[list[Group]]:
    """Groups that share an axis: one unit, one protocol if a task has several, as many as there is room for."""
    panels = []
    for sharing in group_by(groups, lambda group: (group.first["unit"], group.protocol)).values():
        longest_word = max(len(word) for group in sharing for word in re.split(r"[\s-]", group.task))
        slot = max(_GROUP, (_most_bars(sharing) + 1) * _BAR, (min(longest_word, _WORD) + 2) * _CHARACTER)
        most = max(1, int((width - _AXIS) / slot))
        # As few panels as possible, evenly filled.
        count = math.ceil(len(sharing) / most)
        size = math.ceil(len(sharing) / count)
        panels += [sharing[start : start + size] for start in range(0, len(sharing), size)]
    return panels


def _most_bars(groups: Sequence[Group]) -> int:
    return max(len(group.means) for group in groups)


def _plot(groups: Sequence[Group], width: float) -> Plot:
    first = groups[0].first
    characters = int((width - _AXIS) / len(groups) / _CHARACTER) - 1
    if len(groups) == 1:
        label, title, places = groups[0].metric, groups[0].title, [""]
    else:
        label = f"Score ({'%' if first['unit'] == 'percent' else clean(first['unit'])})"
        datasets = {clean(group.first["dataset"]) for group in groups}
        title = f"on {datasets.pop()}" if len(datasets) == 1 else ""
        places = [_place(group, characters, dataset=not title) for group in groups]

    bar = min(0.84 / _most_bars(groups), _WIDEST * len(groups) / (width - _AXIS))

    def draw(axes: Axes) -> None:
        for place, group in enumerate(groups):
            _draw_group(axes, place, group, bar)
        axes.set_xticks(range(len(groups)), places)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.55, len(groups) - 0.45)
        axes.set_ylabel(label)

    more = 0.1 * max(text.count("\n") for text in places)
    return Plot(draw, title, 1.65 + more, least=1.35 + more)


def _place(group: Group, characters: int, *, dataset: bool) -> str:
    parts = [group.task, group.metric.rsplit(" (", 1)[0], *([group.first["dataset"]] if dataset else [])]
    return "\n".join(wrap(part, characters) for part in parts)


def _draw_group(axes: Axes, place: int, group: Group, width: float) -> None:
    start = place - width * (len(group.means) - 1) / 2
    for index, (entry, mean) in enumerate(group.means.items()):
        x = start + index * width
        axes.bar(
            x,
            mean.mean,
            width * 0.92,
            color=entry.colour,
            hatch=entry.style.hatch,
            edgecolor="white",
            linewidth=0,
            label=entry.label,
        )
        if mean.whisker:
            draw_whisker(axes, x, mean.mean, yerr=[[error] for error in mean.errors])
            dots = spread_dots(x, len(mean.values), width * _DOTS)
            axes.plot(dots, mean.values, "o", ms=1.9, mfc="white", mec=INK, mew=0.4, zorder=4)
    if group.chance is not None:
        half = width * len(group.means) / 2 + 0.04
        axes.hlines(group.chance, place - half, place + half, INK, CHANCE_DASH, linewidth=0.8, zorder=3)
