"""Scores as bars and dot rows show them: a group per task, metric and protocol, a mean per series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.series import (
    Mean,
    Panel,
    Series,
    Titles,
    build_series,
    by_protocol,
    group_by,
    make_setting_key,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import INK, clean, metric_label, task_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Group:
    """One task, metric and protocol."""

    first: Row
    means: dict[Series, Mean]
    title: str
    """Task and dataset, and the protocol if it is named or the task has several."""
    protocol: str
    """Empty unless the task has several; scores of different protocols share no axis."""
    chance_name: str = "chance"

    @property
    def task(self) -> str:
        return task_label(self.first["task"])

    @property
    def metric(self) -> str:
        return metric_label(self.first["task"], self.first["metric"], self.first["unit"])

    @property
    def chance(self) -> float | None:
        """None if the metric is not the primary one."""
        return self.first["chance"]


def build_groups(source: Source, options: Options) -> tuple[list[Group], list[Series]]:
    """Groups by task, metric and protocol, and all series in the order to draw them."""
    rows = source.rows(options)
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    groups = []
    for group in _sorted_groups(rows):
        first, by_setting = group[0], group_by(group, setting)
        means = {}
        for key, entry in series.items():
            if key in by_setting:
                means[entry] = mean_over_seeds(by_setting[key], options.spread)
        protocol = titles.protocol(first) if titles.has_several(first["task"]) else ""
        groups.append(Group(first, means, titles.title(first), protocol, chance_name(first, source)))
    return groups, list(series.values())


def _sorted_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by task, metric and protocol. Tasks and protocols are sorted; metrics stay in the order of the rows."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    groups = group_by(rows, by_protocol)

    def order(panel: Panel) -> tuple[str, int, str]:
        task, metric, protocol = panel
        return task, metrics.index(metric), str(protocol)

    return [groups[panel] for panel in sorted(groups, key=order)]


def chance_name(row: Row, source: Source) -> str:
    """The name of a record's `chance`: the accuracy of random guesses for percents, else what the task names."""
    if row["unit"] == "percent":
        return "chance"
    name = source.bodies[row["id"]].get("details", {}).get("chance")
    return clean(name) if isinstance(name, str) and name else "trivial baseline"


def chance_entries(drawn: Iterable[tuple[str, str]]) -> list[tuple[str, Artist]]:
    """The legend's entry for lines at chance, if any are drawn.

    Args:
        drawn: (task, name of the line) of each.
    """
    tasks_by_name: dict[str, list[str]] = {}
    for task, name in dict.fromkeys(drawn):
        tasks_by_name.setdefault(name, []).append(task)
    if not tasks_by_name:
        return []
    if len(tasks_by_name) == 1:
        return [reference(next(iter(tasks_by_name)))]
    # One line style stands for several names: "chance; reconstruction: mean fill".
    parts = ["chance"] if "chance" in tasks_by_name else []
    parts += [f"{', '.join(tasks)}: {name}" for name, tasks in tasks_by_name.items() if name != "chance"]
    return [reference("; ".join(parts))]


def is_near(level: float | None, values: Sequence[float]) -> bool:
    """Whether a level lies within one span of the values, so that a line at it may share their axis."""
    if level is None:
        return False
    span = max(values) - min(values)
    return min(values) - span <= level <= max(values) + span


def spread_dots(middle: float, count: int, width: float) -> list[float]:
    """Places of `count` dots around `middle`, over `width`, in the order of their seeds."""
    return [middle + width * (index / (count - 1) - 0.5) if count > 1 else middle for index in range(count)]


def draw_whisker(axes: Axes, x: float, y: float, **errors: Any) -> None:
    """An error bar that shows on dark bars as well. errors: xerr or yerr, [[below], [above]]."""
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {"color": INK, "elinewidth": 0.8, "capsize": 1.6, "capthick": 0.8, "zorder": 3}
    for artist in axes.errorbar(x, y, linestyle="none", **errors, **style).get_children():
        artist.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
