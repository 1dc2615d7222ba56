"""Score against cost, and the Pareto front of the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from statistics import median
from typing import TYPE_CHECKING

from mimbench.display import describe_method
from mimbench.report.plots.groups import Group, build_groups, chance_entries, is_near
from mimbench.report.plots.series import Mean, Series, describe_means
from mimbench.report.plots.sheet import Plot, Sheet, key
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import CHANCE_DASH, INK, SOFT, clean, device_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPERATIONS = "Operations: counted, of the pretraining alone, 2 per multiplication with addition. "
_DECADES = 20.0
"""Ratio of the largest to the least cost from which the axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    series: Series
    costs: tuple[float, ...]
    """One for each seed."""
    score: Mean

    @property
    def cost(self) -> float:
        """The median: one seed on a busy machine does not move it."""
        return median(self.costs)


def cost(source: Source, options: Options) -> Sheet:
    """Per task: device time and images seen, each of pretraining and task together; operations of the pretraining.

    Operations are drawn if all records count them, images if they differ. The costs of controls set no range.
    """
    groups, series = build_groups(source, options)
    are_counted = all(_is_counted(row) for group in groups for mean in group.means.values() for row in mean.rows)
    plots, chance = list[Plot | None](), list[tuple[str, str]]()
    for group in groups:
        images = _points(group, _images)
        further = [_plot(group, images, 1.0, "Images seen")] if _vary(_of_methods(images)) else []
        if are_counted:
            further.append(_plot(group, _points(group, _flops), 1.0, "Operations of pretraining (FLOP)"))
        devices = list(dict.fromkeys(_device(mean.first) for mean in group.means.values()))
        for device in devices:
            points = [point for point in _points(group, _hours) if _device(point.score.first) == device]
            factor, unit = _time(points)
            plots.append(_plot(group, points, factor, f"Time ({unit}) on {device}", group.title))
            plots.append(further.pop(0) if further else None)
        plots += [place for plot in further for place in (plot, None)]
        if is_near(group.chance, _reach(_points(group, _images))):
            chance.append((group.task, group.chance_name))
    if not any(plots[1::2]):  # one panel per row would leave the right half empty
        plots = [replace(plot, across=1) for plot in plots if plot]
    means = [mean for group in groups for mean in group.means.values()]
    note = (
        f"{describe_means(means)} Cost: pretraining and task together, median over seeds{_ranges(means)}. "
        f"{OPERATIONS if are_counted else ''}"
        "Filled and connected: the Pareto front, which no other setting dominates."
    )
    return Sheet(plots, [*(key(entry) for entry in series), *chance_entries(chance)], note, columns=min(2, len(plots)))


def pareto_front(costs: Sequence[float], scores: Sequence[float], higher_is_better: bool = True) -> list[int]:
    """Indices of the points that no other one dominates, by cost.

    A point dominates another one if it costs no more and scores no worse, and is better in one of both.
    """
    sign = 1 if higher_is_better else -1
    front: list[int] = []
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -sign * scores[index]))
    for index in order:
        last = front[-1] if front else None
        better = last is None or sign * scores[index] > sign * scores[last]
        if better or (last is not None and (costs[index], scores[index]) == (costs[last], scores[last])):
            front.append(index)
    return front


def _of_methods(points: Sequence[Point]) -> Sequence[Point]:
    """Those without controls; all of them if there are only controls."""
    return [point for point in points if not describe_method(point.series.method).is_control] or points


def _vary(points: Sequence[Point]) -> bool:
    return len({point.cost for point in points}) > 1


def _hours(row: Row) -> float:
    return (row["pretrain_seconds"] + row["seconds"]) / 3600


def _images(row: Row) -> float:
    return float(row["pretrain_images"] + row["images"])


def _is_counted(row: Row) -> bool:
    flops = row["pretrain_flops"]
    return flops is not None and not isnan(flops)


def _flops(row: Row) -> float:
    return float(row["pretrain_flops"])


def _points(group: Group, of_row: Callable[[Row], float]) -> list[Point]:
    return [Point(entry, tuple(map(of_row, mean.rows)), mean) for entry, mean in group.means.items()]


def _ranges(means: Sequence[Mean]) -> str:
    several = any(len({cost(row) for row in mean.rows}) > 1 for mean in means for cost in (_hours, _images))
    return " (lines: range over seeds)" if several else ""


def _device(row: Row) -> str:
    """The device or devices of a row, since hours of different ones are not comparable.

    If nothing was pretrained, only the device of the task counts.
    """
    pretrained, task = device_label(row["pretrain_device"]), device_label(row["device"])
    return task if pretrained == task or not row["pretrain_steps"] else f"{pretrained} (task: {task})"


def _time(points: Sequence[Point]) -> tuple[float, str]:
    """Factor from hours, and the unit."""
    if max(point.cost for point in points) >= 0.2:
        return 1.0, "h"
    return 60.0, "min"


def _reach(points: Sequence[Point]) -> list[float]:
    return [value for point in points for value in (point.score.mean, *(point.score.whisker or ()))]


def _plot(group: Group, points: Sequence[Point], factor: float, label: str, title: str = "") -> Plot:
    """One with a title is the first of its row: the title has room over both, and the vertical label holds for both."""
    costs = [point.cost * factor for point in points]
    front = pareto_front(costs, [point.score.mean for point in points], bool(group.first["higher_is_better"]))

    def draw(axes: Axes) -> None:
        if is_near(group.chance, _reach(points)):
            axes.axhline(float(group.chance or 0), color=INK, linestyle=CHANCE_DASH, linewidth=0.8)
        steps = ([costs[index] for index in front], [points[index].score.mean for index in front])
        axes.step(*steps, where="post", color=SOFT, linewidth=0.8, label="Pareto front", zorder=1)
        for index, (point, x) in enumerate(zip(points, costs, strict=True)):
            style, colour = point.series.style, point.series.colour
            if point.score.whisker:
                errors = [[error] for error in point.score.errors]
                axes.errorbar(x, point.score.mean, errors, color=colour, elinewidth=0.8, capsize=1.6, capthick=0.8)
            ends = [factor * end for end in (min(point.costs), max(point.costs))]
            # Behind the marker, so that only a range wider than the marker is visible.
            axes.plot(ends, [point.score.mean] * 2, color=colour, linewidth=0.8, zorder=4)
            face = colour if index in front else "white"
            axes.plot(
                x,
                point.score.mean,
                style.marker,
                color=colour,
                ms=5,
                mec=colour,
                mfc=face,
                mew=0.9,
                label=point.series.label,
                zorder=5,
            )
        axes.set(xlabel=clean(label), ylabel=group.metric if title else "")
        axes.margins(x=0.08, y=0.1)
        _scale(axes, [factor * end for point in _of_methods(points) for end in point.costs])

    return Plot(draw, title, 1.6, 0.5, least=1.35, across=2 if title else 1)


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

    least, most = min(costs), max(costs)
    if least > 0 and most / least >= _DECADES:
        axes.set_xscale("log")
        axes.set_xlim(least / 1.3, most * 1.3)
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif least > 0:
        axes.set_xlim(0, most * 1.08)
    axes.xaxis.set_major_formatter(
        EngFormatter(sep="") if most >= 1000 else FuncFormatter(lambda value, _: f"{value:g}")
    )
