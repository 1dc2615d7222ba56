"""A figure composed of panels: a legend above that covers nothing, a note below, sizes that suit a paper."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
HIGHEST = 8.5
"""Of a figure, inches: what a page of a paper has room for, with a caption."""
_NARROWEST = 2.6
_AXIS = 0.5
"""Height of a panel that its title, ticks and horizontal label take, inches."""
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
    least: float | None = None
    """Height to which it may shrink where a figure would be higher than a page, inches; None: not at all."""
    across: int = 1
    """Columns that its title has room over."""


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
    narrowest: float = _NARROWEST
    """Least width of a panel where several stand side by side, inches."""


def compose(sheet: Sheet, width: float) -> Figure:
    """The figure, `width` inches wide and as high as it needs."""
    return _fitting(sheet, width).finished()


def pages(sheet: Sheet, width: float) -> list[Figure]:
    """The figure, or, where it would be higher than HIGHEST, several: rows of panels, each with legend and note."""
    whole = _fitting(sheet, width)
    room = HIGHEST - whole.beside
    if whole.height <= HIGHEST or len(whole.rows) == 1:
        return [whole.finished()]
    parts = _parts(whole.rows, room)
    # As few as possible, and then about as high as one another.
    for limit in (room * share / 20 for share in range(1, 20)):
        if limit >= max(whole.rows) and len(even := _parts(whole.rows, limit)) == len(parts):
            parts = even
            break
    figures, start = [], 0
    for count in parts:
        plots = sheet.plots[start * whole.columns : (start + count) * whole.columns]
        figures.append(compose(replace(sheet, plots=plots, columns=whole.columns), width))
        start += count
    return figures


def _parts(rows: Sequence[float], limit: float) -> list[int]:
    """How many rows, of these heights, each part has that is at most `limit` high or a single row."""
    parts, filled = [0], 0.0
    for height in rows:
        if parts[-1] and filled + height > limit:
            parts.append(0)
            filled = 0.0
        parts[-1] += 1
        filled += height
    return parts


@dataclass(frozen=True)
class _Laid:
    """A figure of its final size, whose axes have not found their places yet."""

    figure: Figure
    rows: list[float]
    """Heights, inches."""
    columns: int

    @property
    def height(self) -> float:
        return float(self.figure.get_figheight())

    @property
    def beside(self) -> float:
        """What legend and note take."""
        return self.height - sum(self.rows)

    def finished(self) -> Figure:
        engine = self.figure.get_layout_engine()
        assert engine is not None
        with drawing():
            # Ticks change with the size of their axes, and then the layout with them: those of the second time stay.
            engine.execute(self.figure)
            engine.execute(self.figure)
            for axes in self.figure.axes:
                _keep_ticks(axes)
            engine.execute(self.figure)
        self.figure.set_layout_engine("none")  # what was laid out stays as it is, whoever draws it next
        return self.figure


def _fitting(sheet: Sheet, width: float) -> _Laid:
    """With shrunken panels only where that is needed."""
    laid = _laid(sheet, width)
    if laid.height <= HIGHEST or not any(plot and plot.least for plot in sheet.plots):
        return laid
    return _laid(
        replace(sheet, plots=[plot and replace(plot, height=plot.least or plot.height) for plot in sheet.plots]), width
    )


def _laid(sheet: Sheet, width: float) -> _Laid:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with drawing():
        columns = sheet.columns or max(1, min(len(sheet.plots), int(width / sheet.narrowest)))
        rows = [sheet.plots[start : start + columns] for start in range(0, len(sheet.plots), columns)]
        note = fitted(sheet.note, width - 0.1, SMALL) if sheet.note else ""
        # Laid out at the resolution of its PNG: hinting gives text another width at another one.
        figure = Figure(figsize=(width, 2.0), dpi=DPI, layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(rows), columns)
        heights = [
            max(
                _panel(figure.add_subplot(grid[index, column]), plot, width / columns)
                for column, plot in enumerate(row)
                if plot
            )
            for index, row in enumerate(rows)
        ]
        grid.set_height_ratios(heights)
        figure.set_size_inches(width, sum(heights))
        legend = _legend(figure, sheet.legend) if sheet.legend else 0.0
        if note:
            figure.supxlabel(note, x=0.05 / width, ha="left", fontsize=SMALL, color=SOFT)
        figure.set_size_inches(width, sum(heights) + legend + _LINE * (note.count("\n") + 1 if note else 0) + 0.05)
    return _Laid(figure, heights, columns)


def _keep_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator

    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(FixedLocator([tick for tick in axis.get_majorticklocs() if low <= tick <= high]))


def _panel(axes: Axes, plot: Plot, width: float) -> float:
    """Draw with title and labels in as many lines as they need; the height that it takes, inches."""
    plot.draw(axes)
    title = fitted(plot.title, width * plot.across - plot.indent, weight="bold") if plot.title else ""
    axes.set_title(title)
    lines = title.count("\n")
    if axes.get_xlabel():
        axes.set_xlabel(fitted(axes.get_xlabel(), width - plot.indent))
        lines += axes.get_xlabel().count("\n")
    height = plot.height + _LINE * lines
    if axes.get_ylabel():
        axes.set_ylabel(fitted(axes.get_ylabel(), plot.height - _AXIS))
    return height


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
