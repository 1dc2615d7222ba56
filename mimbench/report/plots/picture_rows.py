"""Images of several methods in one grid, with names at the left or above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mimbench.report.plots.sheet import Plot
from mimbench.report.plots.style import INK, SMALL, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

_GAP = 0.03
"""Between images, inches."""
_LABEL = 0.8
"""Width of the names at the left, inches."""
_HEAD = 0.14
"""Height of a line of a heading, inches."""


def draw_grid(
    rows: Sequence[Sequence[Image]],
    width: float,
    *,
    row_names: Sequence[str] = (),
    heads: Sequence[tuple[str, int]] = (),
    subheads: Sequence[str] = (),
) -> Plot:
    """One panel with all images.

    Args:
        rows: images of one shape, row by row.
        width: of the figure, inches.
        row_names: a name to the left of each row, or none.
        heads: (name, number of columns below it) from the left, or none.
        subheads: a name above each column, or none.
    """
    left = _LABEL if row_names else 0.0
    first = rows[0][0]
    side = (width - 0.12 - left - _GAP * (len(rows[0]) - 1)) / len(rows[0])
    height = side * first.height / first.width
    names = [wrap(name, max(8, int(count * (side + _GAP) / 0.062)), 2) for name, count in heads]
    lines = max((name.count("\n") + 1 for name in names), default=0)
    top = _HEAD * lines + (_HEAD if subheads else 0.0)
    total_height = top + len(rows) * (height + _GAP)
    total_width = width - 0.12

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        axes.set(xlim=(0, total_width), ylim=(total_height, 0), aspect="equal")
        for row, images in enumerate(rows):
            y = top + row * (height + _GAP)
            for column, image in enumerate(images):
                x = left + column * (side + _GAP)
                axes.imshow(image, extent=(x, x + side, y + height, y), interpolation="antialiased")
            if row_names:
                name = wrap(row_names[row], 13, 3)
                axes.text(left - 0.05, y + height / 2, name, ha="right", va="center", fontsize=SMALL, color=INK)
        axes.set(xlim=(0, total_width), ylim=(total_height, 0))
        column = 0
        for name, (_, count) in zip(names, heads, strict=True):
            middle = left + (column + count / 2) * (side + _GAP) - _GAP / 2
            size = SMALL if count > 1 else SMALL - 1
            axes.text(middle, _HEAD * lines - 0.03, name, ha="center", va="bottom", fontsize=size, color=INK)
            column += count
        for column, name in enumerate(subheads):
            middle = left + column * (side + _GAP) + side / 2
            axes.text(middle, top - 0.03, name, ha="center", va="bottom", fontsize=SMALL - 1, color=INK)

    return Plot(draw, "", total_height + 0.08, indent=0.0)
