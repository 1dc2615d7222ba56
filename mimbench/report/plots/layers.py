"""Curves that tasks leave: accuracy by layer, quality over the share of hidden cells; the loss of the pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mimbench.report.plots.groups import chance_keys, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines
from mimbench.report.plots.series import Titles, by_protocol, grouped, mean_of, named, settings_of, told
from mimbench.report.plots.sheet import Plot, Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import SOFT, clean, metric_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILLS = {"mean fill": (0, (1, 1)), "nearest fill": (0, (5, 2))}
"""Ways to fill what is hidden without learning, and how they are drawn."""
_LOSS, _NARROW = 1.35, 1.6
"""Height and least width of a panel of losses, inches: there is one for each method."""
Fills = dict[str, dict[float, float]]
"""Their quality: {name: {share of hidden cells: score}}."""


def layers(source: Source, options: Options) -> Sheet:
    """The probe's score on the features of each layer."""
    rows = [row for row in _rows(source, options, "layers") if f"{row['metric']}_by_layer" in _curves(source, row)]
    if not rows:
        command = "mimbench run --method simmim,random-init --task linear-probe --set task.layers=all"
        raise source.refused("layers", "linear probes of every layer", command)

    def points(row: Row) -> dict[float, float]:
        return dict(enumerate(_curves(source, row)[f"{row['metric']}_by_layer"]))

    return _sheet(source, options, rows, points, "Layer (0 is the first)", whole=True)


def ratios(source: Source, options: Options) -> Sheet:
    """Quality of rebuilt pixels over the share of cells that is hidden."""
    rows = _rows(source, options, "ratios")
    rows = [row for row in rows if {"mask_ratio", row["metric"]} <= set(_curves(source, row))]
    if not rows:
        command = "mimbench run --method simmim --task reconstruction"
        raise source.refused("ratios", "records of the task reconstruction", command)

    def points(row: Row) -> dict[float, float]:
        curves = _curves(source, row)
        return dict(zip(curves["mask_ratio"], curves[row["metric"]], strict=True))

    return _sheet(source, options, rows, points, "Share of hidden cells", whole=False)


def _rows(source: Source, options: Options, kind: str) -> list[Row]:
    if options.baseline:
        raise source.no_baseline(kind)
    return source.rows(options)


def _curves(source: Source, row: Row) -> dict[str, list[float]]:
    return source.bodies[row["id"]]["curves"]


def _sheet(source: Source, options: Options, rows: Sequence[Row], points: Any, x: str, *, whole: bool) -> Sheet:
    setting, titles = settings_of(rows), Titles(source, rows)
    series = named(rows, setting, source)
    panels, means, fills = [], [], set()
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
        label = metric_label(first["metric"], first["unit"])
        lines = Lines(titles.title(first), x, label, curves, levels=levels, whole=whole)
        chance += [(clean(first["task"]), chance_name(first, source)) for _ in lines.drawn_levels]
        panels.append((lines, _fills(source, of)))
        fills |= set(panels[-1][1])
    legend = [key(entry) for entry in series.values()] + chance_keys(chance)
    legend += [reference(name, SOFT, _FILLS[name]) for name in sorted(fills)]
    return Sheet([_with_fills(lines, of) for lines, of in panels], legend, told(means))


def _fills(source: Source, rows: Sequence[Row]) -> Fills:
    """Curves of fills that need no method: a mean over all records, for each draws its own masks."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        curves = _curves(source, row)
        for name in _FILLS:
            values = curves.get(f"{row['metric']}, {name}", [])
            for share, value in zip(curves["mask_ratio"] if values else [], values, strict=True):
                found.setdefault(name, {}).setdefault(share, []).append(value)
    return {name: {share: fmean(of[share]) for share in sorted(of)} for name, of in found.items()}


def _with_fills(lines: Lines, fills: Fills) -> Plot:
    plot = lines.plot()

    def draw(axes: Axes) -> None:
        for name, of in fills.items():
            axes.plot(list(of), list(of.values()), color=SOFT, linestyle=_FILLS[name], linewidth=0.8, label=name)
        plot.draw(axes)

    return replace(plot, draw=draw)


def loss(source: Source, options: Options) -> Sheet:
    """Loss of the pretraining by epoch; each method has its own axis, for losses of methods are not comparable."""
    rows = [row for row in _rows(source, options, "loss") if source.bodies[row["id"]]["checkpoint"].get("loss")]
    if not rows:
        raise source.refused(
            "loss",
            "records that keep the loss of their pretraining, which untrained methods and older records do not",
            "mimbench run --method simmim --task linear-probe",
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
        title = clean(method)
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
