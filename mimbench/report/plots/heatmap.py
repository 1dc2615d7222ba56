"""Scores over two settings that were varied together, as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mimbench.display import setting_label
from mimbench.errors import InputError
from mimbench.report.plots.equal_settings import settings_without
from mimbench.report.plots.lines import place_values
from mimbench.report.plots.series import (
    Mean,
    Titles,
    by_protocol,
    describe_means,
    group_by,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import INK, SMALL, clean, method_label, metric_label
from mimbench.report.plots.sweeps import varied_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Grid = Mapping[tuple[Any, Any], Mean]


def heatmap(source: Source, options: Options) -> Sheet:
    """Means over seeds by the values of two settings; all else is equal within a panel.

    Raises:
        InputError: --over names more or fewer than two settings, or the records vary more than two.
    """
    named = [path.strip() for path in (options.over or "").split(",") if path.strip()]
    if len(named) not in (0, 2):
        raise InputError(f"--over {options.over}: heatmap takes two settings, as PATH,PATH")
    paths = named or varied_paths(source, options)
    if len(paths) > 2:
        raise InputError(f"the records vary {', '.join(paths)}: choose two with --over PATH,PATH")
    panels = _collect(source, options, paths) if len(paths) == 2 else []
    if not panels:
        first, other = list(dict.fromkeys((*paths, "method.mask_ratio", "encoder.patch_size")))[:2]
        raise source.nothing_to_plot(
            "heatmap",
            "records that vary two settings together, all else equal",
            f"mimbench run --method METHOD --task TASK --vary {first}=A,B --vary {other}=C,D",
        )
    titles = Titles(source, [mean.first for grid in panels for mean in grid.values()])
    plots = [_plot(grid, paths, titles, options.width) for grid in panels]
    means = [mean for grid in panels for mean in grid.values()]
    return Sheet(plots, (), f"{describe_means(means)} Framed: the best of each panel.", narrowest=2.6)


def _collect(source: Source, options: Options, paths: Sequence[str]) -> list[Grid]:
    rows = [row for row in source.rows(options, paths) if all(row[path] is not None for path in paths)]

    keys = settings_without(source, paths)

    def rest(row: Row) -> tuple[Any, ...]:
        return row["method"], row["encoder"], keys[row["id"]], *by_protocol(row)

    grids: list[Grid] = []
    for group in group_by(rows, rest).values():
        cells = group_by(group, lambda row: (row[paths[0]], row[paths[1]]))
        if all(len({cell[axis] for cell in cells}) > 1 for axis in (0, 1)):
            grids.append({cell: mean_over_seeds(here, options.spread) for cell, here in cells.items()})
    return grids


def _plot(grid: Grid, paths: Sequence[str], titles: Titles, width: float) -> Plot:
    first = next(iter(grid.values())).first
    xs, x_names = place_values([cell[0] for cell in grid])
    ys, y_names = place_values([cell[1] for cell in grid])
    columns, rows = sorted(xs, key=xs.__getitem__), sorted(ys, key=ys.__getitem__)
    best = (max if first["higher_is_better"] else min)(grid, key=lambda cell: grid[cell].mean)
    means = [mean.mean for mean in grid.values()]
    middle = (min(means) + max(means)) / 2
    metric = metric_label(first["task"], first["metric"], first["unit"])

    def draw(axes: Axes) -> None:
        import numpy as np
        from matplotlib.patches import Rectangle

        values = np.full((len(rows), len(columns)), np.nan)
        for (x, y), mean in grid.items():
            values[rows.index(y), columns.index(x)] = mean.mean
        axes.imshow(values, cmap="cividis", aspect="auto", origin="lower")
        for (x, y), mean in grid.items():
            place = columns.index(x), rows.index(y)
            colour = "white" if mean.mean < middle else "black"
            axes.text(*place, f"{mean.mean:.1f}", ha="center", va="center", fontsize=SMALL, color=colour)
        corner = columns.index(best[0]) - 0.5, rows.index(best[1]) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.4))
        axes.set_xticks(range(len(columns)), x_names or [f"{value:g}" for value in columns])
        axes.set_yticks(range(len(rows)), y_names or [f"{value:g}" for value in rows])
        axes.set(xlabel=clean(setting_label(paths[0])), ylabel=clean(setting_label(paths[1])))
        axes.grid(visible=False)
        axes.tick_params(length=0)

    title = f"{method_label(first['method'])}, {titles.title(first)}: {metric}"
    return Plot(draw, title, 0.75 + 0.26 * len(rows), indent=0.6)
