"""Score against cost, and which settings no other one beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mimbench.report.plots.groups import Group, groups_of, near
from mimbench.report.plots.series import Mean, Series, told
from mimbench.report.plots.sheet import Plot, Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import INK, SOFT, clean, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DECADES = 20.0
"""Ratio of the largest to the least cost from which the axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    series: Series
    cost: float
    score: Mean


def cost(source: Source, options: Options) -> Sheet:
    """A row for each task: hours of the device, and images seen; each in pretraining and task together."""
    if options.baseline:
        raise source.no_baseline("cost")
    groups, series = groups_of(source, options)
    plots, chance = list[Plot | None](), False
    for group in groups:
        devices = list(dict.fromkeys(_device(mean.first) for mean in group.means.values()))
        for device in devices:
            points = [point for point in _points(group, _hours) if _device(point.score.first) == device]
            factor, unit = _time(points)
            # The title of a row has the width of both panels.
            plots.append(
                _plot(group, points, factor, f"Time ({unit}) on {device}", group.title, 0.55 - options.width / 2)
            )
            images = _plot(group, _points(group, _images), 1.0, "Images seen")
            plots.append(images if device == devices[0] else None)
        chance = chance or near(group.chance, _reach(_points(group, _images)))
    means = [mean for group in groups for mean in group.means.values()]
    note = (
        f"{told(means)} Cost: pretraining and task together, mean over seeds. "
        "Filled and joined: the Pareto front, which no other setting beats in both."
    )
    legend = [key(entry) for entry in series]
    return Sheet(plots, [*legend, *([reference("chance")] if chance else [])], note, columns=2)


def pareto_front(costs: Sequence[float], scores: Sequence[float], higher_is_better: bool = True) -> list[int]:
    """Indices of what no other one dominates: costs no more and scores no worse, and one of both better. By cost."""
    sign = 1 if higher_is_better else -1
    front: list[int] = []
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -sign * scores[index]))
    for index in order:
        last = front[-1] if front else None
        better = last is None or sign * scores[index] > sign * scores[last]
        if better or (last is not None and (costs[index], scores[index]) == (costs[last], scores[last])):
            front.append(index)
    return front


def _hours(row: Row) -> float:
    return (row["pretrain_seconds"] + row["seconds"]) / 3600


def _images(row: Row) -> float:
    return float(row["pretrain_images"] + row["images"])


def _points(group: Group, of_row: Callable[[Row], float]) -> list[Point]:
    return [Point(entry, sum(map(of_row, mean.rows)) / len(mean.rows), mean) for entry, mean in group.means.items()]


def _device(row: Row) -> str:
    """Hours of different devices are not comparable. Where nothing was pretrained, the task's device alone counts."""
    pretrained, task = clean(row["pretrain_device"]), clean(row["device"])
    return task if pretrained == task or not row["pretrain_steps"] else f"{pretrained} (task: {task})"


def _time(points: Sequence[Point]) -> tuple[float, str]:
    """Factor from hours, and the unit."""
    if max(point.cost for point in points) >= 0.2:
        return 1.0, "h"
    return 60.0, "min"


def _reach(points: Sequence[Point]) -> list[float]:
    return [value for point in points for value in (point.score.mean, *(point.score.whisker or ()))]


def _plot(
    group: Group, points: Sequence[Point], factor: float, label: str, title: str = "", indent: float = 0.0
) -> Plot:
    costs = [point.cost * factor for point in points]
    front = pareto_front(costs, [point.score.mean for point in points], bool(group.first["higher_is_better"]))

    def draw(axes: Axes) -> None:
        if near(group.chance, _reach(points)):
            axes.axhline(float(group.chance or 0), color=INK, linestyle=(0, (4, 2)), linewidth=0.8)
        steps = ([costs[index] for index in front], [points[index].score.mean for index in front])
        axes.step(*steps, where="post", color=SOFT, linewidth=0.8, label="Pareto front", zorder=1)
        for index, (point, x) in enumerate(zip(points, costs, strict=True)):
            look, colour = point.series.look, point.series.colour
            if point.score.whisker:
                errors = [[error] for error in point.score.errors]
                axes.errorbar(x, point.score.mean, errors, color=colour, elinewidth=0.8, capsize=1.6, capthick=0.8)
            face = colour if index in front else "white"
            axes.plot(
                x,
                point.score.mean,
                look.marker,
                ms=5,
                mec=colour,
                mfc=face,
                mew=0.9,
                label=point.series.label,
                zorder=5,
            )
        axes.set(xlabel=wrapped(label, 30), ylabel=group.metric)
        axes.margins(x=0.08, y=0.1)
        _scale(axes, costs)

    return Plot(draw, title, 1.6, indent)


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

    least, most = min(costs), max(costs)
    if least > 0 and most / least >= _DECADES:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif least > 0:
        axes.set_xlim(0, most * 1.08)
    axes.xaxis.set_major_formatter(
        EngFormatter(sep="") if most >= 1000 else FuncFormatter(lambda value, _: f"{value:g}")
    )
