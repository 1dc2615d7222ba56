"""The kinds of plots, and the functions that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mimbench.errors import InputError, nearest
from mimbench.report.plots.bars import bars
from mimbench.report.plots.cost import cost
from mimbench.report.plots.dot_rows import seeds
from mimbench.report.plots.layers import layers, loss, ratios
from mimbench.report.plots.pictures import picture_kinds, pictures
from mimbench.report.plots.predictors import KIND, predictors
from mimbench.report.plots.sheet import Sheet, compose, pages
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.report.plots.style import drawing
from mimbench.report.plots.sweeps import ablation, epochs, varied_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Maker = Callable[[Source, Options], Sheet]
_OF_EVERY_TASK: dict[str, Maker] = {
    "bars": bars,
    "ablation": ablation,
    "epochs": epochs,
    "layers": layers,
    "ratios": ratios,
    "cost": cost,
    "loss": loss,
    "seeds": seeds,
    KIND: predictors,
}
ALL = "all"
_SHOW_BASELINE = ("bars", "ablation", "epochs")


def plot_kinds() -> dict[str, Maker]:
    """Every kind of plot by name: those for any task, and the pictures that tasks declare in their display files."""
    return _OF_EVERY_TASK | {kind: partial(pictures, kind) for kind in picture_kinds() if kind not in _OF_EVERY_TASK}


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
    return plot_kinds()[kind](source, options)


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
    """An ablation per path that was varied. Kinds that show no baseline ignore it."""
    options = options if kind in _SHOW_BASELINE else replace(options, baseline=None)
    if kind != "ablation" or options.over:
        yield kind, options
        return
    paths = varied_paths(source, options)
    for path in paths:
        yield f"{kind}-{path}", replace(options, over=path)
    if not paths:
        yield kind, options
