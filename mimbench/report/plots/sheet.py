"""A figure composed of panels: a legend above that covers nothing, a note below, sizes that suit a paper."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimbench.files import writing
from mimbench.report.plots.series import Series
from mimbench.report.plots.style import INK, SMALL, SOFT, drawing, fitted, wrapped

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 300
FORMATS = ("png", "pdf", "svg")
_NARROWEST = 2.6
"""Least width of a panel where several stand side by side, inches."""
_LINE = 0.115
"""Height of a line of small text, inches."""


@dataclass(frozen=True)
class Plot:
    """One pair of axes."""

    draw: Callable[[Axes], None]
    title: str = ""
    height: float = 1.75
    """Inches, with its labels."""
    indent: float = 0.55
    """Inches that its labels take at the left."""


@dataclass(frozen=True)
class Sheet:
    """All that a figure shows."""

    plots: Sequence[Plot | None]
    """Row by row; None leaves a place empty."""
    legend: Sequence[tuple[str, Artist]] = ()
    """Labels and what stands for them."""
    note: str = ""
    columns: int | None = None
    """Panels side by side; None: as many as there is room for."""
    least: float = _NARROWEST


def compose(sheet: Sheet, width: float) -> Figure:
    """The figure, `width` inches wide and as high as it needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with drawing():
        columns = sheet.columns or max(1, min(len(sheet.plots), int(width / sheet.least)))
        rows = [sheet.plots[start : start + columns] for start in range(0, len(sheet.plots), columns)]
        titles = [[_title(plot, width / columns) for plot in row] for row in rows]
        heights = [
            max(plot.height for plot in row if plot) + _LINE * max(title.count("\n") for title in named)
            for row, named in zip(rows, titles, strict=True)
        ]
        note = fitted(sheet.note, width - 0.1, SMALL) if sheet.note else ""
        # Laid out at the resolution of its PNG: hinting gives text another width at another one.
        figure, layout = Figure(figsize=(width, sum(heights)), dpi=DPI), ConstrainedLayoutEngine()
        figure.set_layout_engine(layout)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
        for index, (row, named) in enumerate(zip(rows, titles, strict=True)):
            for column, (plot, title) in enumerate(zip(row, named, strict=True)):
                if plot:
                    axes = figure.add_subplot(grid[index, column])
                    plot.draw(axes)
                    axes.set_title(title)
        legend = _legend(figure, sheet.legend) if sheet.legend else 0.0
        if note:
            figure.supxlabel(note, x=0.05 / width, ha="left", fontsize=SMALL, color=SOFT)
        figure.set_size_inches(width, sum(heights) + legend + _LINE * (note.count("\n") + 1 if note else 0) + 0.05)
        for _ in range(2):  # ticks change with the size of their axes, and then the layout with them
            layout.execute(figure)
        figure.set_layout_engine("none")  # what was laid out stays as it is, whoever draws it next
    return figure


def _title(plot: Plot | None, width: float) -> str:
    return fitted(plot.title, width - plot.indent, weight="bold") if plot and plot.title else ""


def _legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> float:
    """Place it above all axes in as many columns as fit; its height in inches."""
    labels = [wrapped(label, 44) for label, _ in entries]
    artists = [artist for _, artist in entries]
    for columns in range(min(len(entries), 6), 0, -1):
        legend = figure.legend(artists, labels, loc="outside upper center", ncols=columns, borderaxespad=0.2)
        size = legend.get_window_extent()
        # Rows evenly filled: five entries as 3 + 2, not 4 + 1.
        if size.width / figure.dpi <= figure.get_figwidth() - 0.05 and columns <= math.ceil(
            len(entries) / math.ceil(len(entries) / columns)
        ):
            break
        if columns > 1:
            legend.remove()
    return float(size.height / figure.dpi)


def key(series: Series, *, line: bool = True) -> tuple[str, Artist]:
    """A series' entry in the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not line:
        return series.label, Patch(facecolor=series.colour, edgecolor=INK, linewidth=0.4, hatch=series.look.hatch)
    return series.label, Line2D([], [], color=series.colour, marker=series.look.marker, linestyle=series.dash)


def reference(label: str, colour: Any = INK, dash: Any = (0, (4, 2))) -> tuple[str, Artist]:
    """A dashed line's entry in the legend."""
    from matplotlib.lines import Line2D

    return label, Line2D([], [], color=colour, linestyle=dash, linewidth=0.8)


def image(figure: Figure, format: str) -> bytes:
    """The figure as a file of one of FORMATS. The same figure gives the same bytes on every call."""
    stamps = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format=format, metadata=stamps[format])
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> Path:
    """Write the figure in the format that the file's name ends in.

    Raises:
        InputError: the file cannot be written.
    """
    content = image(figure, path.suffix.removeprefix(".").lower())
    with writing(f"--output {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path
