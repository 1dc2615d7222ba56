"""Curves that tasks record: accuracy by layer, quality by mask ratio; the loss of the pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mimbench.display import command_for, describe_method, describe_task
from mimbench.report.plots.groups import chance_keys, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines
from mimbench.report.plots.series import Titles, by_protocol, grouped, mean_of, named, settings_of, told
from mimbench.report.plots.sheet import Plot, Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import SOFT, clean, metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = {"dotted": (0, (1, 1)), "dashed": (0, (5, 2))}
"""Lines of reference curves, as matplotlib takes them."""
Dashes = tuple[int, tuple[int, ...]]
_LOSS, _NARROW = 1.35, 1.6
"""Height and least width of a panel of losses, inches: there is one for each method."""
ReferenceCurves = dict[str, dict[float, float]]
"""Curves that hold for every method: {name: {mask ratio: score}}."""


def layers(source: Source, options: Options) -> Sheet:
    """The probe's score on the features of each layer."""
    rows = [row for row in _rows(source, options, "layers") if f"{row['metric']}_by_layer" in _curves(source, row)]
    if not rows:
        raise source.refused("layers", "records of a task that measured every layer", command_for("layers"))

    def points(row: Row) -> dict[float, float]:
        return dict(enumerate(_curves(source, row)[f"{row['metric']}_by_layer"]))

    return _sheet(source, options, rows, points, "Layer (0 is the first)", whole=True)


def ratios(source: Source, options: Options) -> Sheet:
    """Quality of reconstructed pixels by mask ratio."""
    rows = _rows(source, options, "ratios")
    rows = [row for row in rows if {"mask_ratio", row["metric"]} <= set(_curves(source, row))]
    if not rows:
        raise source.refused("ratios", "records of a task that measured several mask ratios", command_for("ratios"))

    def points(row: Row) -> dict[float, float]:
        curves = _curves(source, row)
        return dict(zip(curves["mask_ratio"], curves[row["metric"]], strict=True))

    return _sheet(source, options, rows, points, "Mask ratio", whole=False)


def _rows(source: Source, options: Options, kind: str) -> list[Row]:
    if options.baseline:
        raise source.no_baseline(kind)
    return source.rows(options)


def _curves(source: Source, row: Row) -> dict[str, list[float]]:
    return source.bodies[row["id"]]["curves"]


def _sheet(source: Source, options: Options, rows: Sequence[Row], points: Any, x: str, *, whole: bool) -> Sheet:
    setting, titles = settings_of(rows), Titles(source, rows)
    series = named(rows, setting, source)
    panels, means = [], []
    dashes: dict[str, Dashes] = {}
    chance: list[tuple[str, str]] = []
    for of in grouped(rows, by_protocol).values():
        curves, parts, first = [], grouped(of, setting), of[0]
        for found, entry in series.items():
            spread: dict[float, list[Row]] = {}
            for row in parts.get(found, ()):
                for place, value in points(row).items():
                    spread.setdefault(place, []).append({**row, "value": value})
            xs = sorted(spread)
            if xs:
                curves.append(Curve(entry, tuple(xs), tuple(mean_of(spread[at], options.spread) for at in xs)))
        means += [mean for curve in curves for mean in curve.means]
        levels = [Level(row["chance"]) for row in of[:1] if row["chance"] is not None and whole]
        label = metric_label(first["task"], first["metric"], first["unit"])
        lines = Lines(titles.title(first), x, label, curves, levels=levels, whole=whole)
        chance += [(clean(first["task"]), chance_name(first, source)) for _ in lines.drawn_levels]
        panels.append((lines, _reference_curves(source, of)))
        dashes |= {name: line for name, line in _dashes(first["task"]).items() if name in panels[-1][1]}
    legend = [key(entry) for entry in series.values()] + chance_keys(chance)
    legend += [reference(name, SOFT, dashes[name]) for name in sorted(dashes)]
    return Sheet([_with_references(lines, curves, dashes) for lines, curves in panels], legend, told(means))


def _dashes(task: str) -> dict[str, Dashes]:
    """Reference curves that the task's display file names, with their lines."""
    return {name: _DASHES[line] for name, line in describe_task(task).reference_curves.items()}


def _reference_curves(source: Source, rows: Sequence[Row]) -> ReferenceCurves:
    """Reference curves of one panel: means over all its records, since each record draws masks of its own."""
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
    """Loss of the pretraining by epoch; each method has its own axis, for losses of methods are not comparable."""
    rows = [row for row in _rows(source, options, "loss") if source.bodies[row["id"]]["checkpoint"].get("loss")]
    if not rows:
        raise source.refused(
            "loss",
            "records that keep the loss of their pretraining, which untrained methods and older records do not",
            command_for("loss"),
        )
    rows = list({(row["method"], row["checkpoint"]): row for row in rows}.values())
    setting = settings_of(rows, lambda row: row["method"])
    series = named(rows, setting, source)
    plots, means = [], []
    by_setting = grouped(rows, setting)
    for method in dict.fromkeys(entry.method for entry in series.values()):
        curves = []
        for found, entry in series.items():
            if entry.method == method:
                curves.append(_loss_curve(source, entry, by_setting[found], options))
        means += [mean for curve in curves for mean in curve.means]
        title = clean(describe_method(method).label or method)
        lines = Lines(title, "Epoch", "Pretraining loss", curves, whole=True)
        plots.append(replace(lines.plot(), height=_LOSS, least=_LOSS))
    several = [entry for entry in series.values() if entry.places > 1]
    note = f"{told(means)} Mean over each epoch. Losses of different methods are not comparable."
    return Sheet(plots, [key(entry) for entry in several], note, narrowest=_NARROW)


def _loss_curve(source: Source, entry: Any, rows: Sequence[Row], options: Options) -> Curve:
    """Over the epochs that every seed has reached."""
    losses = [source.bodies[row["id"]]["checkpoint"]["loss"] for row in rows]
    length = min(map(len, losses))
    means = [
        mean_of([{**row, "value": of[epoch]} for row, of in zip(rows, losses, strict=True)], options.spread)
        for epoch in range(length)
    ]
    return Curve(entry, tuple(range(1, length + 1)), tuple(means))
