"""One line a method: its seeds as dots, or its difference to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.groups import Group, chance_keys, groups_of, near, spaced, whisker
from mimbench.report.plots.series import Mean, Series, interval_of, told
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import INK, SMALL, clean, wrapped
from mimbench.report.scores.statistics import Summary, paired_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPREAD = 0.44
"""Share of a line's height over which its dots lie."""


@dataclass(frozen=True)
class Strip:
    series: Series
    n: int
    mean: float
    whisker: tuple[float, float] | None
    dots: tuple[float, ...] = ()
    """None of them: the mean has the marker, and the axis shows zero."""

    @property
    def reach(self) -> tuple[float, ...]:
        """All values that the axis has to show."""
        return (self.mean, *self.dots, *(self.whisker or ()))


def seeds(source: Source, options: Options) -> Sheet:
    """Every seed as a dot beside its method's mean."""
    if options.baseline:
        raise source.no_baseline("seeds")
    groups, _ = groups_of(source, options)
    several = [{entry: mean for entry, mean in group.means.items() if len(mean.values) > 1} for group in groups]
    means = [mean for of in several for mean in of.values()]
    counted = len({len(mean.values) for mean in means}) > 1
    plots, chance = list[Plot](), []
    for group, of in zip(groups, several, strict=True):
        strips = [Strip(entry, len(m.values), m.mean, m.whisker, m.values) for entry, m in of.items()]
        if strips:
            level = group.chance if near(group.chance, [v for strip in strips for v in strip.reach]) else None
            plots.append(_plot(group.title, group.metric, strips, level, counted=counted))
            chance += [(group.task, group.chance_name)] if level is not None else []
    if not plots:
        command = "mimbench run --method METHOD --task TASK --seeds 0,1,2"
        raise source.refused("seeds", "two or more seeds of one setting", command)
    return Sheet(plots, chance_keys(chance), f"Dots: seeds; bar: mean. {told(means)}")


def differences(source: Source, options: Options, groups: Sequence[Group]) -> Sheet:
    """Each method minus the baseline, paired by seed: one panel a task."""
    baseline = str(options.baseline)
    found: list[tuple[Group, list[Strip]]] = []
    left = []
    for group in groups:
        of_baseline = [mean for entry, mean in group.means.items() if entry.method == baseline]
        strips = []
        for entry, mean in group.means.items():
            if entry.method != baseline and len(of_baseline) == 1:
                pair = paired_difference(_by_seed(mean), _by_seed(of_baseline[0]))
                strips += [Strip(entry, pair.n, pair.mean, _whisker(pair, options))] if pair else []
        if strips:
            found.append((group, strips))
        else:
            left.append(group.task)
    if not found:
        raise source.refused(
            f"differences to {clean(baseline)}",
            f"one setting of {clean(baseline)}, and another method with the same task, protocol and seeds",
            f"mimbench run --method {clean(baseline)},METHOD --task TASK --seeds 0,1,2",
        )
    ns = {strip.n for _, strips in found for strip in strips}
    plots = []
    for group, strips in found:
        unit = "points" if group.first["unit"] == "percent" else clean(group.first["unit"])
        label = f"{group.metric.rsplit(' (', 1)[0]}: difference to {wrapped(baseline, 24, 1)} ({unit})"
        plots.append(_plot(group.title, label, strips, None, counted=len(ns) > 1))
    pairs = "n: pairs of seeds" if len(ns) > 1 else f"n = {max(ns)} {'pairs' if max(ns) > 1 else 'pair'} of seeds"
    note = f"Mean difference, paired by seed{_how(ns, options)}; {pairs}."
    if left:
        note += f" Left out, with nothing to pair: {', '.join(dict.fromkeys(left))}."
    return Sheet(plots, (), note)


def _how(ns: set[int], options: Options) -> str:
    if max(ns) == 1:
        return ", without an interval"
    return f", with {'±1 sd of the differences' if options.spread == 'sd' else interval_of('it')}"


def _by_seed(mean: Mean) -> dict[int, float]:
    return {row["seed"]: float(row["value"]) for row in mean.rows}


def _whisker(found: Summary, options: Options) -> tuple[float, float] | None:
    if options.spread == "sd" and found.sd is not None:
        return found.mean - found.sd, found.mean + found.sd
    return (found.interval.low, found.interval.high) if found.interval else None


def _plot(title: str, label: str, strips: Sequence[Strip], chance: float | None, *, counted: bool) -> Plot:
    """counted: the number of seeds stands beside each name."""
    names = [wrapped(strip.series.label + (f" (n={strip.n})" if counted else ""), 22, 4) for strip in strips]

    def draw(axes: Axes) -> None:
        for place, strip in enumerate(strips):
            _draw_strip(axes, place, strip)
        if chance is not None:
            axes.axvline(chance, color=INK, linestyle=(0, (4, 2)), linewidth=0.8)
        if not any(strip.dots for strip in strips):
            axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
        axes.set_xlabel(label)

    height = 0.62 + len(names) * (0.11 * (max(name.count("\n") for name in names) + 1) + 0.07)
    longest = max(len(line) for name in names for line in name.split("\n"))
    return Plot(draw, title, height, indent=0.1 + 0.056 * longest)


def _draw_strip(axes: Axes, place: int, strip: Strip) -> None:
    series = strip.series
    style: dict[str, Any] = {"marker": series.look.marker, "color": series.colour, "label": series.label}
    if strip.whisker:
        errors = [[strip.mean - strip.whisker[0]], [strip.whisker[1] - strip.mean]]
        whisker(axes, strip.mean, place, xerr=errors)
    if strip.dots:
        heights = spaced(place, len(strip.dots), _SPREAD)
        axes.plot(strip.dots, heights, linestyle="none", ms=3.6, mec="white", mew=0.3, zorder=4, **style)
        axes.vlines(strip.mean, place - 0.36, place + 0.36, INK, linewidth=1.2, zorder=4)
    else:
        axes.plot([strip.mean], [place], linestyle="none", ms=5.5, mec="white", mew=0.4, zorder=5, **style)
