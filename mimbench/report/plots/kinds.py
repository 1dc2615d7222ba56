"""The kinds of plots, and the functions that make them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mimbench.errors import InputError, nearest
from mimbench.report.plots.bars import bars
from mimbench.report.plots.classes import classes, confusion, precision_recall
from mimbench.report.plots.cost import cost
from mimbench.report.plots.dot_rows import seeds
from mimbench.report.plots.heatmap import heatmap
from mimbench.report.plots.layers import layers, loss, ratios
from mimbench.report.plots.pictures import picture_kinds, pictures
from mimbench.report.plots.predictors import KIND, predictors
from mimbench.report.plots.rankings import critical_difference, win_rates
from mimbench.report.plots.reconstructions import reconstructions
from mimbench.report.plots.sheet import Sheet, compose, pages
from mimbench.report.plots.shots import label_efficiency
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.report.plots.style import drawing
from mimbench.report.plots.sweeps import ablation, epochs, varied_paths
from mimbench.report.plots.task_curves import curve_kinds, task_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Maker = Callable[[Source, Options], Sheet]
_OF_EVERY_TASK: dict[str, Maker] = {
    "bars": bars,
    "ablation": ablation,
    "heatmap": heatmap,
    "epochs": epochs,
    "layers": layers,
    "ratios": ratios,
    "cost": cost,
    "loss": loss,
    "seeds": seeds,
    KIND: predictors,
    "label-efficiency": label_efficiency,
    "classes": classes,
    "confusion": confusion,
    "precision-recall": precision_recall,
    "critical-difference": critical_difference,
    "win-rates": win_rates,
    "reconstructions": reconstructions,
}
ALL = "all"
_SHOW_BASELINE = ("bars", "ablation", "epochs")


def plot_kinds() -> dict[str, Maker]:
    """Every kind of plot by name: those for any task, and the pictures and curves that display files declare."""
    declared = {kind: partial(pictures, kind) for kind in picture_kinds()}
    declared |= {kind: partial(task_curves, kind) for kind in curve_kinds()}
    return _OF_EVERY_TASK | {kind: maker for kind, maker in declared.items() if kind not in _OF_EVERY_TASK}


def figure(kind: str, source: Source, options: Options | None = None) -> Figure:
    """One figure, however high; see `sheet.save` and `sheet.image` to get it out.

    Args:
        kind: one of `plot_kinds`.
        source: records, see `Source.read` and `Source.from_records`.

    Raises:
        NothingToPlot: the records hold nothing of this kind.
        InputError: an unknown kind, or a choice that no record meets.
    """
    options = options or Options()
    with drawing():
        return compose(_make_sheet(kind, source, options), options.width)


def figures(kind: str, source: Source, options: Options) -> list[Figure]:
    """As `figure`, in parts that each fit on a page."""
    with drawing():
        return pages(_make_sheet(kind, source, options), options.width)


def require_kind(kind: str) -> None:
    """Raise InputError if `kind` is neither one of `plot_kinds` nor "all"."""
    kinds = [*plot_kinds(), ALL]
    if kind not in kinds:
        raise InputError(f"unknown kind of plot {kind!r}{nearest(kind, kinds)}")


def _make_sheet(kind: str, source: Source, options: Options) -> Sheet:
    require_kind(kind)
    if options.baseline and kind not in _SHOW_BASELINE:
        raise InputError(f"--baseline: {kind} shows no baseline; only bars, ablation and epochs do")
    return replace(plot_kinds()[kind](source, options), is_captioned=options.caption)


def draw_kinds(kind: str, source: Source, options: Options) -> Iterator[tuple[str, list[Figure] | NothingToPlot]]:
    """(name, figures) of a kind or of all of them; for `all`, kinds that cannot be drawn come with the reason."""
    if kind != ALL:
        yield kind, figures(kind, source, options)
        return
    source.chosen(options)
    for name in plot_kinds():
        for title, choice in _choices(name, source, options):
            try:
                yield title, figures(name, source, choice)
            except NothingToPlot as reason:
                yield title, reason


def _choices(kind: str, source: Source, options: Options) -> Iterator[tuple[str, Options]]:
    """An ablation per path that was varied, a heat map per pair. Kinds that show no baseline ignore it."""
    options = options if kind in _SHOW_BASELINE else replace(options, baseline=None)
    count = {"ablation": 1, "heatmap": 2}.get(kind)
    named = (options.over or "").count(",") + 1 if options.over else 0
    if count is None or named == count:
        yield kind, options
        return
    options = replace(options, over=None)
    choices = [",".join(paths) for paths in itertools.combinations(varied_paths(source, options), count)]
    for paths in choices:
        yield f"{kind}-{paths}", replace(options, over=paths)
    if not choices:
        yield kind, options
