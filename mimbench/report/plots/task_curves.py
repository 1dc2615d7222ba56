"""Curves that tasks declare in their display files, such as ROC curves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mimbench.display import command_for, described_tasks
from mimbench.display_file import CurveKind
from mimbench.report.plots.layers import mean_curve
from mimbench.report.plots.lines import Lines
from mimbench.report.plots.series import Titles, build_series, by_protocol, describe_means, group_by, make_setting_key
from mimbench.report.plots.sheet import Plot, Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASH = (0, (1, 1))
_TICKS = 8
"""Most points of which each gets a tick on a logarithmic axis."""


def task_curves(kind: str, source: Source, options: Options) -> Sheet:
    """The curve of each setting, mean over seeds; a panel per protocol."""
    kinds = curve_kinds()[kind]

    def points(row: Row) -> dict[float, float]:
        curves, shown = source.bodies[row["id"]]["curves"], kinds[row["task"]]
        return dict(zip(curves[shown.x], curves[shown.y], strict=True))

    rows = [row for row in source.rows(options) if row["task"] in kinds and _has_curve(source, row, kinds[row["task"]])]
    rows = list({row["id"]: row for row in rows}.values())
    if not rows:
        raise source.nothing_to_plot(kind, f"records of {' or '.join(kinds)} with this curve", command_for(kind))
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    panels, means = [], []
    for group in group_by(rows, by_protocol).values():
        by_setting, shown = group_by(group, setting), kinds[group[0]["task"]]
        curves = [
            mean_curve(entry, by_setting[key], points, options) for key, entry in series.items() if key in by_setting
        ]
        means += [mean for curve in curves for mean in curve.means]
        is_sparse = max(len(curve.xs) for curve in curves) <= _TICKS
        lines = Lines(titles.title(group[0]), shown.x_label, shown.y_label, curves, doubling=shown.log_x and is_sparse)
        panels.append(_scaled(lines, shown))
    legend = [key(entry) for entry in series.values()]
    legend += [reference(name, SOFT, _DASH) for name in sorted({one.diagonal for one in kinds.values()} - {""})]
    return Sheet(panels, legend, describe_means(means))


def curve_kinds() -> dict[str, dict[str, CurveKind]]:
    """{kind of plot: {task: its curve of that kind}}, as the tasks' display files say."""
    kinds: dict[str, dict[str, CurveKind]] = {}
    for task, display in described_tasks().items():
        for kind, shown in display.curves.items():
            kinds.setdefault(kind, {})[task] = shown
    return kinds


def _has_curve(source: Source, row: Row, shown: CurveKind) -> bool:
    return {shown.x, shown.y} <= set(source.bodies[row["id"]]["curves"])


def _scaled(lines: Lines, shown: CurveKind) -> Plot:
    plot = lines.plot()

    def draw(axes: Axes) -> None:
        plot.draw(axes)
        if shown.diagonal:
            ends = sorted(x for curve in lines.curves for x in curve.xs)
            axes.plot([ends[0], ends[-1]], [ends[0], ends[-1]], color=SOFT, linestyle=_DASH, linewidth=0.8)
        if shown.log_x and not lines.doubling:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_plain_number)
        if shown.log_y:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_formatter(_plain_number)

    return replace(plot, draw=draw)


def _plain_number(value: float, place: float) -> str:
    return f"{value:g}"
