"""Line plots: curves of means over seeds with their intervals, published curves, and levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.groups import is_near
from mimbench.report.plots.series import DASHES, Mean, Series
from mimbench.report.plots.sheet import Plot
from mimbench.report.plots.style import CHANCE_DASH, INK, clean, lightened, method_style, wrap
from mimbench.report.scores.fields import is_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


_BARS, _MARKS = 10, 8
"""Most points whose intervals are drawn as bars, and whose places are all marked."""


@dataclass(frozen=True)
class Curve:
    series: Series
    xs: tuple[float, ...]
    means: tuple[Mean, ...]

    @property
    def reach(self) -> list[float]:
        """All values that the axis has to show."""
        return [value for mean in self.means for value in (mean.mean, *(mean.whisker or ()))]


@dataclass(frozen=True)
class PublishedCurve:
    """A curve that others published: numbers without an interval."""

    method: str
    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    place: int = 0
    places: int = 1

    def line_style(self) -> dict[str, Any]:
        style = method_style(self.method)
        colour = lightened(style.colour, 0.5 * self.place / max(1, self.places - 1))
        dash = (*DASHES[1:], (0, (7, 1)), (0, (4, 1, 1, 1, 1, 1)))[self.place % 5]
        return {
            "color": colour,
            "marker": style.marker,
            "mfc": "white",
            "mew": 0.8,
            "linestyle": dash,
        }

    def key(self) -> tuple[str, Artist]:
        from matplotlib.lines import Line2D

        return self.label, Line2D([], [], **self.line_style())


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as chance or a baseline."""

    value: float
    colour: str = INK
    dash: Any = CHANCE_DASH
    name: tuple[str, str] = ("", "chance")
    """Of a line at chance: the task, and what the line is."""
    always: bool = False
    """Drawn even if it lies far from the curves."""


@dataclass(frozen=True)
class Lines:
    """All that one panel shows."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve] = ()
    quoted: Sequence[PublishedCurve] = ()
    levels: Sequence[Level] = ()
    categories: Sequence[str] = ()
    """Names of the places 0, 1, ... on the axis, if the values are no numbers."""
    whole: bool = False
    """The axis has whole numbers only."""
    doubling: bool = False
    """The axis is logarithmic, with a tick at each place."""

    @property
    def drawn_levels(self) -> list[Level]:
        reach = [value for curve in self.curves for value in curve.reach]
        reach += [value for curve in self.quoted for value in curve.ys]
        return [level for level in self.levels if level.always or is_near(level.value, reach)]

    def plot(self) -> Plot:
        more = 0.1 if self.categories else 0.0
        return Plot(self._draw, self.title, 1.75 + more, least=1.4 + more)

    def _draw(self, axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator, NullLocator

        for level in self.drawn_levels:
            axes.axhline(level.value, color=level.colour, linestyle=level.dash, linewidth=0.8)
        for quoted in self.quoted:
            axes.plot(quoted.xs, quoted.ys, label=quoted.label, **quoted.line_style())
        is_crowded = len(self.curves) > 1 or any(len(curve.xs) > _BARS for curve in self.curves)
        banded = is_crowded and not self.categories
        for curve in self.curves:
            draw_curve(axes, curve, joined=not self.categories, banded=banded)
        axes.set(xlabel=self.x, ylabel=self.y)
        axes.margins(x=0.04, y=0.08)
        if self.categories:
            axes.set_xticks(range(len(self.categories)), [wrap(name, 12) for name in self.categories])
            axes.set_xlim(-0.5, len(self.categories) - 0.5)
        elif self.doubling:
            axes.set_xscale("log")
            axes.set_xticks(self._labelled_places(), [f"{place:g}" for place in self._labelled_places()])
            axes.xaxis.set_minor_locator(NullLocator())
        elif self.whole:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))

    def _labelled_places(self) -> list[float]:
        """Places with room for their label between them: a tenth of the axis, from the right."""
        curves: list[Curve | PublishedCurve] = [*self.curves, *self.quoted]
        xs = sorted({x for curve in curves for x in curve.xs}, reverse=True)
        # The axis is logarithmic, so a tenth of it is a ratio.
        least_ratio = (xs[0] / xs[-1]) ** 0.1
        labelled = xs[:1]
        for x in xs[1:]:
            if labelled[-1] / x >= least_ratio:
                labelled.append(x)
        return labelled


def draw_curve(axes: Axes, curve: Curve, *, joined: bool, banded: bool) -> None:
    """A curve with its intervals: as a band if `banded`, else as error bars."""
    series = curve.series
    axes.plot(
        curve.xs,
        [mean.mean for mean in curve.means],
        color=series.colour,
        marker=series.style.marker,
        linestyle=series.dash if joined else "none",
        label=series.label,
        mec="white",
        mew=0.3,
        markevery=max(1, len(curve.xs) // _MARKS),
    )
    if banded:
        edges = [mean.whisker or (mean.mean, mean.mean) for mean in curve.means]
        low, high = zip(*edges, strict=True)
        axes.fill_between(curve.xs, low, high, color=series.colour, alpha=0.18, linewidth=0)
        return
    for x, mean in zip(curve.xs, curve.means, strict=True):
        if mean.whisker:
            errors = [[error] for error in mean.errors]
            axes.errorbar(x, mean.mean, errors, color=series.colour, elinewidth=0.8, capsize=1.6, capthick=0.8)


def place_values(values: Sequence[Any]) -> tuple[dict[Any, float], list[str]]:
    """{value: place on the axis}, and the names of the places if the values are no numbers."""
    distinct = list(dict.fromkeys(values))
    if all(map(is_number, distinct)):
        return {value: float(value) for value in sorted(distinct)}, []
    distinct.sort(key=str)
    return {value: float(place) for place, value in enumerate(distinct)}, [clean(value) for value in distinct]
