"""One row per method: its seeds as dots, or its difference from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.groups import Group, build_groups, chance_entries, draw_whisker, is_near, spread_dots
from mimbench.report.plots.series import Mean, Series, describe_means, interval_of, name_interval
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import CHANCE_DASH, INK, SMALL, clean, wrap
from mimbench.report.scores.statistics import paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPREAD = 0.44
"""Share of a row's height over which its dots lie."""


@dataclass(frozen=True)
class DotRow:
    series: Series
    n: int
    mean: float
    whisker: tuple[float, float] | None
    dots: tuple[float, ...] = ()
    """Values of the seeds; if empty, the mean has the marker, and the axis shows zero."""

    @property
    def reach(self) -> tuple[float, ...]:
        """All values that the axis has to show."""
        return (self.mean, *self.dots, *(self.whisker or ()))


def seeds(source: Source, options: Options) -> Sheet:
    """Every seed as a dot, and the mean of each method as a bar."""
    groups, _ = build_groups(source, options)
    # One seed has no spread to show.
    several = [[(entry, mean) for entry, mean in group.means.items() if len(mean.values) > 1] for group in groups]
    means = [mean for entries in several for _, mean in entries]
    counted = len({len(mean.values) for mean in means}) > 1
    plots, chance = list[Plot](), []
    for group, entries in zip(groups, several, strict=True):
        rows = [DotRow(entry, len(mean.values), mean.mean, mean.whisker, mean.values) for entry, mean in entries]
        if rows:
            reach = [value for row in rows for value in row.reach]
            level = group.chance if is_near(group.chance, reach) else None
            plots.append(_plot(group.title, group.metric, rows, level, counted=counted))
            chance += [(group.task, group.chance_name)] if level is not None else []
    if not plots:
        command = "mimbench run --method METHOD --task TASK --seeds 0,1,2"
        raise source.nothing_to_plot("seeds", "two or more seeds of one setting", command)
    return Sheet(plots, chance_entries(chance), f"Dots: seeds; bar: mean. {describe_means(means)}")


def differences(source: Source, options: Options, groups: Sequence[Group]) -> Sheet:
    """Each method minus the baseline, paired by seed: one panel per task."""
    baseline = str(options.baseline)
    panels: list[tuple[Group, list[DotRow]]] = []
    left_out = []
    for group in groups:
        of_baseline = [mean for entry, mean in group.means.items() if entry.method == baseline]
        rows = []
        for entry, mean in group.means.items():
            if entry.method != baseline and len(of_baseline) == 1:
                pair = paired_difference(_by_seed(mean), _by_seed(of_baseline[0]))
                rows += [DotRow(entry, pair.n, pair.mean, interval_of(pair, options.spread))] if pair else []
        if rows:
            panels.append((group, rows))
        else:
            left_out.append(group.task)
    if not panels:
        raise source.nothing_to_plot(
            f"differences from {clean(baseline)}",
            f"one setting of {clean(baseline)}, and another method with the same task, protocol and seeds",
            f"mimbench run --method {clean(baseline)},METHOD --task TASK --seeds 0,1,2",
        )
    ns = {row.n for _, rows in panels for row in rows}
    plots = []
    for group, rows in panels:
        unit = "points" if group.first["unit"] == "percent" else clean(group.first["unit"])
        label = f"{group.metric.rsplit(' (', 1)[0]}: difference from {wrap(baseline, 24, 1)} ({unit})"
        plots.append(_plot(group.title, label, rows, None, counted=len(ns) > 1))
    pairs = "n: pairs of seeds" if len(ns) > 1 else f"n = {max(ns)} {'pairs' if max(ns) > 1 else 'pair'} of seeds"
    note = f"Mean difference, paired by seed{_describe_spread(ns, options)}; {pairs}."
    if left_out:
        note += f" Left out, as nothing can be paired: {', '.join(dict.fromkeys(left_out))}."
    return Sheet(plots, (), note)


def _describe_spread(ns: set[int], options: Options) -> str:
    if max(ns) == 1:
        return ", without an interval"
    return f", with {'±1 std of the differences' if options.spread == 'sd' else name_interval('it')}"


def _by_seed(mean: Mean) -> dict[int, float]:
    return {row["seed"]: float(row["value"]) for row in mean.rows}


def _plot(title: str, label: str, rows: Sequence[DotRow], chance: float | None, *, counted: bool) -> Plot:
    """counted: the number of seeds follows each name."""
    names = [wrap(row.series.label + (f" (n={row.n})" if counted else ""), 22, 4) for row in rows]

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            _draw_row(axes, place, row)
        if chance is not None:
            axes.axvline(chance, color=INK, linestyle=CHANCE_DASH, linewidth=0.8)
        if not any(row.dots for row in rows):
            axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
        axes.set_xlabel(label)

    height = 0.62 + len(names) * (0.11 * (max(name.count("\n") for name in names) + 1) + 0.07)
    longest = max(len(line) for name in names for line in name.split("\n"))
    return Plot(draw, title, height, indent=0.1 + 0.056 * longest)


def _draw_row(axes: Axes, place: int, row: DotRow) -> None:
    series = row.series
    style: dict[str, Any] = {"marker": series.style.marker, "color": series.colour, "label": series.label}
    if row.whisker:
        errors = [[row.mean - row.whisker[0]], [row.whisker[1] - row.mean]]
        draw_whisker(axes, row.mean, place, xerr=errors)
    if row.dots:
        heights = spread_dots(place, len(row.dots), _SPREAD)
        axes.plot(row.dots, heights, linestyle="none", ms=3.6, mec="white", mew=0.3, zorder=4, **style)
        axes.vlines(row.mean, place - 0.36, place + 0.36, INK, linewidth=1.2, zorder=4)
    else:
        axes.plot([row.mean], [place], linestyle="none", ms=5.5, mec="white", mew=0.4, zorder=5, **style)
