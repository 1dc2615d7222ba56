"""Scores as bars and strips show them: groups of one task, metric and protocol, a mean for each series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.series import Mean, Series, Titles, by_protocol, grouped, mean_of, named, settings_of
from mimbench.report.plots.sheet import reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import INK, clean, metric_label

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Group:
    """One task, metric and protocol."""

    first: Row
    means: dict[Series, Mean]
    title: str
    """Task, dataset, and protocol where there is one to tell."""
    protocol: str
    """Only where the task has several, which then share no axis."""
    chance_name: str = "chance"

    @property
    def task(self) -> str:
        return clean(self.first["task"])

    @property
    def metric(self) -> str:
        return metric_label(self.first["task"], self.first["metric"], self.first["unit"])

    @property
    def chance(self) -> float | None:
        """Of primary metrics."""
        return self.first["chance"]


def groups_of(source: Source, options: Options) -> tuple[list[Group], list[Series]]:
    """Groups by task, metric and protocol, and all series in the order to draw them."""
    rows = source.rows(options)
    setting, titles = settings_of(rows), Titles(source, rows)
    series = named(rows, setting, source)
    groups = []
    for of in _sorted(rows):
        first, parts = of[0], grouped(of, setting)
        means = {series[found]: mean_of(parts[found], options.spread) for found in series if found in parts}
        alone = titles.protocol(first) if titles.has_several(first["task"]) else ""
        groups.append(Group(first, means, titles.title(first), alone, chance_name(first, source)))
    return groups, list(series.values())


def _sorted(rows: Sequence[Row]) -> list[list[Row]]:
    """By task and protocol; metrics as the task declares them, which is how they come."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    found = grouped(rows, by_protocol)
    return [found[at] for at in sorted(found, key=lambda at: (at[0], metrics.index(at[1]), str(at[2])))]


def chance_name(row: Row, source: Source) -> str:
    """What a record's `chance` is called: a share of right answers by guessing, else what the task says that it is."""
    if row["unit"] == "percent":
        return "chance"
    told = source.bodies[row["id"]].get("details", {}).get("chance")
    return clean(told) if isinstance(told, str) and told else "knowing nothing"


def chance_keys(drawn: Iterable[tuple[str, str]]) -> list[tuple[str, Artist]]:
    """The legend's entry for lines at chance, of which (task, name) are drawn; none for none."""
    names = grouped(dict.fromkeys(drawn), lambda pair: pair[1])
    others = [f"{', '.join(task for task, _ in of)}: {name}" for name, of in names.items() if name != "chance"]
    if len(names) == 1:
        return [reference(next(iter(names)))]
    return [reference("; ".join([*(["chance"] if "chance" in names else []), *others]))] if names else []


def near(level: float | None, values: Sequence[float]) -> bool:
    """Whether a line at `level` lies so near to the values that it may share their axis."""
    if level is None:
        return False
    span = max(values) - min(values)
    return min(values) - span <= level <= max(values) + span


def spaced(middle: float, count: int, width: float) -> list[float]:
    """Places of dots in the order of their seeds."""
    return [middle + width * (index / (count - 1) - 0.5) if count > 1 else middle for index in range(count)]


def whisker(axes: Axes, x: float, y: float, **errors: Any) -> None:
    """An error bar that shows on dark bars as well. errors: xerr or yerr, [[below], [above]]."""
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {"color": INK, "elinewidth": 0.8, "capsize": 1.6, "capthick": 0.8, "zorder": 3}
    for artist in axes.errorbar(x, y, linestyle="none", **errors, **style).get_children():
        artist.set_path_effects([withStroke(linewidth=1.8, foreground="white")])
