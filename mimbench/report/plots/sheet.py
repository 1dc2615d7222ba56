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
from mimbench.report.plots.style import CHANCE_DASH, INK, SMALL, SOFT, clean, current_look, drawing, wrap, wrap_to_width

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 300
FORMATS = ("png", "pdf", "svg")
HIGHEST = 8.5
"""Of a figure, inches: what a page of a paper has room for, below which a caption fits."""
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
    """Height to which it may shrink if the figure is higher than a page, inches; None: not at all."""
    across: int = 1
    """Number of columns over which its title may extend."""


@dataclass(frozen=True)
class Sheet:
    """The content of a figure."""

    plots: Sequence[Plot | None]
    """Panels, row by row; None leaves a place empty."""
    legend: Sequence[tuple[str, Artist]] = ()
    """(label, artist) of each entry."""
    note: str = ""
    """What a caption has to say."""
    is_captioned: bool = False
    """Whether the note is drawn below the panels. The label of the figure is the note in any case."""
    columns: int | None = None
    """Panels per row; None: as many as there is room for."""
    narrowest: float = _NARROWEST
    """Least width of a panel if a row has several, inches."""


def compose(sheet: Sheet, width: float) -> Figure:
    """The figure, `width` inches wide and as high as it needs."""
    return _size_to_page(sheet, width).finish()


def pages(sheet: Sheet, width: float) -> list[Figure]:
    """The figure; if it would be higher than HIGHEST, several: rows of panels, each with legend and note."""
    whole = _size_to_page(sheet, width)
    room = HIGHEST - whole.height_of_texts
    if whole.height <= HIGHEST or len(whole.rows) == 1:
        return [whole.finish()]
    figures, start = [], 0
    for count in _split_evenly(whole.rows, room):
        plots = sheet.plots[start * whole.columns : (start + count) * whole.columns]
        figures.append(compose(replace(sheet, plots=plots, columns=whole.columns), width))
        start += count
    return figures


def _split_evenly(rows: Sequence[float], room: float) -> list[int]:
    """The number of rows of each page: as few pages as possible, which then are about equally high."""
    pages = _split_rows(rows, room)
    # The lowest limit that needs no more pages spreads the rows most evenly.
    for step in range(1, 20):
        limit = room * step / 20
        if limit >= max(rows):
            even_pages = _split_rows(rows, limit)
            if len(even_pages) == len(pages):
                return even_pages
    return pages


def _split_rows(rows: Sequence[float], limit: float) -> list[int]:
    """The number of rows of each page. A page is at most `limit` high, or holds a single row. rows: their heights."""
    parts, filled = [0], 0.0
    for height in rows:
        if parts[-1] and filled + height > limit:
            parts.append(0)
            filled = 0.0
        parts[-1] += 1
        filled += height
    return parts


@dataclass(frozen=True)
class _SizedFigure:
    """A figure of its final size, before the layout of its axes."""

    figure: Figure
    rows: list[float]
    """Heights, inches."""
    columns: int

    @property
    def height(self) -> float:
        return float(self.figure.get_figheight())

    @property
    def height_of_texts(self) -> float:
        """Height of legend and note, inches."""
        return self.height - sum(self.rows)

    def finish(self) -> Figure:
        engine = self.figure.get_layout_engine()
        assert engine is not None
        with drawing():
            # Ticks depend on the size of the axes, and the layout on the labels of the ticks. After two passes the
            # ticks are fixed for the last one.
            engine.execute(self.figure)
            engine.execute(self.figure)
            for axes in self.figure.axes:
                _keep_ticks(axes)
            engine.execute(self.figure)
        self.figure.set_layout_engine("none")  # saving must not lay it out again
        return self.figure


def _size_to_page(sheet: Sheet, width: float) -> _SizedFigure:
    """The figure; its panels are shrunken if it would be higher than a page otherwise."""
    figure = _size_figure(sheet, width)
    if figure.height <= HIGHEST or not any(plot and plot.least for plot in sheet.plots):
        return figure
    shrunken = [plot and replace(plot, height=plot.least or plot.height) for plot in sheet.plots]
    return _size_figure(replace(sheet, plots=shrunken), width)


def _size_figure(sheet: Sheet, width: float) -> _SizedFigure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with drawing():
        columns = sheet.columns or max(1, min(len(sheet.plots), int(width / sheet.narrowest)))
        rows = [sheet.plots[start : start + columns] for start in range(0, len(sheet.plots), columns)]
        note = wrap_to_width(sheet.note, width - 0.1, SMALL) if sheet.note and sheet.is_captioned else ""
        # The resolution is that of the PNG, since hinting makes the width of text depend on it.
        figure = Figure(figsize=(width, 2.0), dpi=DPI, layout=ConstrainedLayoutEngine())
        figure.set_label(clean(sheet.note))
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(len(rows), columns)
        heights = []
        for index, row in enumerate(rows):
            panel_heights = []
            for column, plot in enumerate(row):
                if plot:
                    panel_heights.append(_draw_panel(figure.add_subplot(grid[index, column]), plot, width / columns))
            heights.append(max(panel_heights))
        grid.set_height_ratios(heights)
        figure.set_size_inches(width, sum(heights))
        legend = _draw_legend(figure, sheet.legend) if sheet.legend else 0.0
        if note:
            figure.supxlabel(note, x=0.05 / width, ha="left", fontsize=SMALL, color=SOFT)
        note_lines = note.count("\n") + 1 if note else 0
        figure.set_size_inches(width, sum(heights) + legend + _LINE * note_lines + 0.05)
    return _SizedFigure(figure, heights, columns)


def _keep_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator

    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(FixedLocator([tick for tick in axis.get_majorticklocs() if low <= tick <= high]))


def _draw_panel(axes: Axes, plot: Plot, width: float) -> float:
    """Draw a panel, with title and labels in as many lines as they need. Returns its height, inches."""
    plot.draw(axes)
    title = wrap_to_width(plot.title, width * plot.across - plot.indent, weight="bold") if plot.title else ""
    axes.set_title(title)
    lines = title.count("\n")
    if axes.get_xlabel():
        axes.set_xlabel(wrap_to_width(axes.get_xlabel(), width - plot.indent))
        lines += axes.get_xlabel().count("\n")
    height = plot.height + _LINE * lines
    if axes.get_ylabel():
        axes.set_ylabel(wrap_to_width(axes.get_ylabel(), plot.height - _AXIS))
    return height


def _draw_legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> float:
    """Draw the legend above all axes, in as many columns as fit. Returns its height, inches."""
    labels = [wrap(label, 44) for label, _ in entries]
    artists = [artist for _, artist in entries]
    for columns in range(min(len(entries), 6), 0, -1):
        legend = figure.legend(artists, labels, loc="outside upper center", ncols=columns, borderaxespad=0.2)
        size = legend.get_window_extent()
        fits = size.width / figure.dpi <= figure.get_figwidth() - 0.05
        # Rows are evenly filled: five entries as 3 + 2, not 4 + 1.
        rows = math.ceil(len(entries) / columns)
        is_even = columns <= math.ceil(len(entries) / rows)
        if fits and is_even:
            break
        if columns > 1:
            legend.remove()
    return float(size.height / figure.dpi)


def key(series: Series, *, line: bool = True) -> tuple[str, Artist]:
    """The legend entry of a series."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if not line:
        return series.label, Patch(facecolor=series.colour, edgecolor=INK, linewidth=0.4, hatch=series.style.hatch)
    return series.label, Line2D([], [], color=series.colour, marker=series.style.marker, linestyle=series.dash)


def reference(label: str, colour: Any = INK, dash: Any = CHANCE_DASH) -> tuple[str, Artist]:
    """The legend entry of a dashed line."""
    from matplotlib.lines import Line2D

    return label, Line2D([], [], color=colour, linestyle=dash, linewidth=0.8)


def image(figure: Figure, format: str) -> bytes:
    """The figure as a file of one of FORMATS, with its caption among the file's metadata.

    The same figure gives the same bytes on every call.
    """
    caption = str(figure.get_label())
    stamps: dict[str, Any] = {
        "png": {"Software": None, "Description": caption},
        "pdf": {"CreationDate": None, "Subject": caption},
        "svg": {"Date": None, "Description": caption},
    }
    buffer = io.BytesIO()
    with drawing():
        dpi = current_look().dpi if format == "png" else "figure"
        figure.savefig(buffer, format=format, metadata=stamps[format], dpi=dpi)
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
