"""How well label-free measures and monitors predict the score of a probe: rank correlation over settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from mimbench.display import command_for, describe_task
from mimbench.report.plots.groups import Group, build_groups
from mimbench.report.plots.series import Mean, Series
from mimbench.report.plots.sheet import Plot, Sheet, key
from mimbench.report.plots.source import Options, Source
from mimbench.report.plots.style import clean, metric_label, task_label
from mimbench.report.scores.choice import ALL_METRICS
from mimbench.report.scores.statistics import LEVEL, LEVEL_TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND = "predictors"
FEWEST = 4
"""Settings that a rank correlation with an interval needs."""
Values = Mapping[str, float]
"""Checkpoint -> value."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho over n pairs, and its interval at LEVEL."""

    rho: float
    low: float
    high: float
    n: int


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> RankCorrelation | None:
    """Spearman's rho with the interval of Bonett & Wright (Psychometrika 65, 2000): Fisher's z with the variance
    (1 + rho^2 / 2) / (n - 3). None for fewer than FEWEST pairs, or if all values of one side are equal.

    At rho = 1 or -1, z is that of the next smaller value without ties, so that the interval has a width.
    """
    from scipy.special import ndtri
    from scipy.stats import spearmanr

    n = len(xs)
    if n < FEWEST or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    rho = float(spearmanr(xs, ys).statistic)
    most = 1 - 12 / (n**3 - n)
    z = math.atanh(max(-most, min(most, rho)))
    half = float(ndtri((1 + LEVEL) / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return RankCorrelation(rho, min(rho, math.tanh(z - half)), max(rho, math.tanh(z + half)), n)


def predictors(source: Source, options: Options) -> Sheet:
    """A panel per probe and measure: one dot per setting, the mean over its seeds."""
    measures = _measures(source)
    groups, series = build_groups(source, replace(options, metrics=()))
    panels = []
    for group in groups:
        if _is_measure(group.first["task"]) or group.first["unit"] != "percent":
            continue
        for name, values in measures.items():
            pairs = _pairs(group, values)
            if len(pairs) >= FEWEST:
                panels.append(_plot(group, name, pairs))
    if not panels:
        raise source.nothing_to_plot(
            KIND,
            f"{FEWEST} or more settings with a probe, and with monitors or a task of label-free measures",
            command_for(KIND),
        )
    note = (
        "A dot is the mean over seeds of a setting. ρ: Spearman's rank correlation over settings, with its "
        f"{LEVEL_TEXT} interval (Bonett and Wright). Monitors: their last value in pretraining, on training images."
    )
    drawn = {entry for group in groups for entry in group.means}
    return Sheet(panels, [key(entry) for entry in series if entry in drawn], note)


def _is_measure(task: str) -> bool:
    return KIND in describe_task(task).plots


def _measures(source: Source) -> Mapping[str, Values]:
    """Values by checkpoint of each metric of tasks that declare this plot, and of each monitor."""
    measured: dict[str, dict[str, float]] = {}
    tasks = tuple(sorted({row["task"] for row in source.rows(Options()) if _is_measure(row["task"])}))
    rows = source.rows(Options(tasks=tasks, metrics=ALL_METRICS)) if tasks else []
    for row in rows:
        name = f"{metric_label(row['task'], row['metric'], '')}, {task_label(row['task'])}"
        measured.setdefault(name, {})[row["checkpoint"]] = float(row["value"])
    for body in source.bodies.values():
        checkpoint = body["checkpoint"]
        for name, points in checkpoint.get("monitored", {}).items():
            measured.setdefault(f"monitor {clean(name)}", {})[checkpoint["fingerprint"]] = float(points[-1][1])
    return measured


def _pairs(group: Group, values: Values) -> list[tuple[Series, float, float]]:
    """(series, mean of the measure, mean score) over the seeds that have both."""
    pairs = []
    for entry, mean in group.means.items():
        both = _of_seeds(mean, values)
        if both:
            pairs.append((entry, fmean(x for x, _ in both), fmean(y for _, y in both)))
    return pairs


def _of_seeds(mean: Mean, values: Values) -> list[tuple[float, float]]:
    return [(values[row["checkpoint"]], float(row["value"])) for row in mean.rows if row["checkpoint"] in values]


def _plot(group: Group, name: str, pairs: Sequence[tuple[Series, float, float]]) -> Plot:
    measured = rank_correlation([x for _, x, _ in pairs], [y for _, _, y in pairs])
    title = "ρ undefined: equal values"
    if measured:
        title = f"ρ = {measured.rho:.2f} [{measured.low:.2f}, {measured.high:.2f}], n = {measured.n}".replace("-", "−")

    def draw(axes: Axes) -> None:
        for entry, x, y in pairs:
            axes.plot(x, y, entry.style.marker, color=entry.colour, ms=5, mec="white", mew=0.4, label=entry.label)
        axes.set(xlabel=name, ylabel=f"{group.task}: {group.metric}")
        axes.margins(x=0.1, y=0.12)

    return Plot(draw, title, 1.75, 0.55)
