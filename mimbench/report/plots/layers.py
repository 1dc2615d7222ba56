"""Curves that tasks record: accuracy by layer, quality by mask ratio; the loss of the pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from mimbench.display import command_for, describe_task
from mimbench.report.plots.groups import chance_entries, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines
from mimbench.report.plots.series import (
    Series,
    Titles,
    build_series,
    by_protocol,
    describe_means,
    group_by,
    make_setting_key,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import Plot, Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import SOFT, method_label, metric_label, task_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = {"dotted": (0, (1, 1)), "dashed": (0, (5, 2))}
"""Lines of reference curves, as matplotlib takes them."""
Dashes = tuple[int, tuple[int, ...]]
_LOSS, _NARROW = 1.35, 1.6
"""Height and least width of a panel of losses, inches. There is one per method."""
ReferenceCurves = dict[str, dict[float, float]]
"""Curves that hold for every method: {name: {mask ratio: score}}."""
Points = Callable[[Row], dict[float, float]]
"""A function from a row to the curve of its record: {x: value}."""


def layers(source: Source, options: Options) -> Sheet:
    """The probe's score on the features of each layer."""
    rows = [row for row in source.rows(options) if f"{row['metric']}_by_layer" in _curves(source, row)]
    if not rows:
        raise source.nothing_to_plot("layers", "records of a task that measured every layer", command_for("layers"))

    def points(row: Row) -> dict[float, float]:
        return dict(enumerate(_curves(source, row)[f"{row['metric']}_by_layer"]))

    return _sheet(source, options, rows, points, "Layer (0 is the first)", whole=True)


def ratios(source: Source, options: Options) -> Sheet:
    """Quality of reconstructed pixels by mask ratio."""
    rows = source.rows(options)
    rows = [row for row in rows if {"mask_ratio", row["metric"]} <= set(_curves(source, row))]
    if not rows:
        raise source.nothing_to_plot(
            "ratios", "records of a task that measured several mask ratios", command_for("ratios")
        )

    def points(row: Row) -> dict[float, float]:
        curves = _curves(source, row)
        return dict(zip(curves["mask_ratio"], curves[row["metric"]], strict=True))

    return _sheet(source, options, rows, points, "Mask ratio", whole=False)


def _curves(source: Source, row: Row) -> dict[str, list[float]]:
    return source.bodies[row["id"]]["curves"]


def _sheet(source: Source, options: Options, rows: Sequence[Row], points: Points, x: str, *, whole: bool) -> Sheet:
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    panels, means = [], []
    dashes: dict[str, Dashes] = {}
    chance: list[tuple[str, str]] = []
    for group in group_by(rows, by_protocol).values():
        first, by_setting = group[0], group_by(group, setting)
        curves = [
            mean_curve(entry, by_setting[key], points, options) for key, entry in series.items() if key in by_setting
        ]
        means += [mean for curve in curves for mean in curve.means]
        # Chance is a level of the curves over layers; over mask ratios it changes with the ratio.
        levels = [Level(first["chance"])] if first["chance"] is not None and whole else []
        label = metric_label(first["task"], first["metric"], first["unit"])
        lines = Lines(titles.title(first), x, label, curves, levels=levels, whole=whole)
        chance += [(task_label(first["task"]), chance_name(first, source)) for _ in lines.drawn_levels]
        panels.append((lines, _reference_curves(source, group)))
        dashes |= {name: line for name, line in _dashes(first["task"]).items() if name in panels[-1][1]}
    legend = [key(entry) for entry in series.values()] + chance_entries(chance)
    legend += [reference(name, SOFT, dashes[name]) for name in sorted(dashes)]
    return Sheet([_with_references(lines, curves, dashes) for lines, curves in panels], legend, describe_means(means))


def mean_curve(entry: Series, rows: Sequence[Row], points: Points, options: Options) -> Curve:
    """The mean over seeds of the curves that several records hold."""
    rows_at: dict[float, list[Row]] = {}
    for row in rows:
        for x, value in points(row).items():
            rows_at.setdefault(x, []).append({**row, "value": value})
    xs = sorted(rows_at)
    return Curve(entry, tuple(xs), tuple(mean_over_seeds(rows_at[x], options.spread) for x in xs))


def _dashes(task: str) -> dict[str, Dashes]:
    """Reference curves that the task's display file names, with their lines."""
    return {name: _DASHES[line] for name, line in describe_task(task).reference_curves.items()}


def _reference_curves(source: Source, rows: Sequence[Row]) -> ReferenceCurves:
    """Reference curves of one panel: means over all its records, since each record draws different masks."""
    values: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        curves = _curves(source, row)
        for name in _dashes(row["task"]):
            curve = curves.get(f"{row['metric']}, {name}")
            if curve:
                for ratio, value in zip(curves["mask_ratio"], curve, strict=True):
                    values.setdefault(name, {}).setdefault(ratio, []).append(value)
    return {name: {ratio: fmean(by_ratio[ratio]) for ratio in sorted(by_ratio)} for name, by_ratio in values.items()}


def _with_references(lines: Lines, references: ReferenceCurves, dashes: Mapping[str, Dashes]) -> Plot:
    plot = lines.plot()

    def draw(axes: Axes) -> None:
        for name, curve in references.items():
            xs, ys = list(curve), list(curve.values())
            axes.plot(xs, ys, color=SOFT, linestyle=dashes[name], linewidth=0.8, label=name)
        plot.draw(axes)

    return replace(plot, draw=draw)


def loss(source: Source, options: Options) -> Sheet:
    """Loss of the pretraining by epoch; a panel per method, since losses of different methods are not comparable."""
    rows = [row for row in source.rows(options) if source.bodies[row["id"]]["checkpoint"].get("loss")]
    if not rows:
        raise source.nothing_to_plot(
            "loss",
            "records with the loss of their pretraining, which untrained methods and older records lack",
            command_for("loss"),
        )
    rows = list({(row["method"], row["checkpoint"]): row for row in rows}.values())
    setting = make_setting_key(rows, lambda row: row["method"])
    series = build_series(rows, setting, source)
    plots, means = [], []
    by_setting = group_by(rows, setting)
    for method in dict.fromkeys(entry.method for entry in series.values()):
        curves = []
        for setting_key, entry in series.items():
            if entry.method == method:
                curves.append(_loss_curve(source, entry, by_setting[setting_key], options))
        means += [mean for curve in curves for mean in curve.means]
        title = method_label(method)
        lines = Lines(title, "Epoch", "Pretraining loss", curves, whole=True)
        plots.append(replace(lines.plot(), height=_LOSS, least=_LOSS))
    several = [entry for entry in series.values() if entry.places > 1]
    note = f"{describe_means(means)} Mean over each epoch. Losses of different methods are not comparable."
    return Sheet(plots, [key(entry) for entry in several], note, narrowest=_NARROW)


def _loss_curve(source: Source, entry: Series, rows: Sequence[Row], options: Options) -> Curve:
    """The mean loss over the epochs that every seed has reached."""
    losses = [source.bodies[row["id"]]["checkpoint"]["loss"] for row in rows]
    length = min(map(len, losses))
    means = []
    for epoch in range(length):
        at_epoch = [{**row, "value": losses_of_row[epoch]} for row, losses_of_row in zip(rows, losses, strict=True)]
        means.append(mean_over_seeds(at_epoch, options.spread))
    return Curve(entry, tuple(range(1, length + 1)), tuple(means))
