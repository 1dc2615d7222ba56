"""What pretrained methods make of masked images: methods as columns, from the pictures that pretrainings leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mimbench.display import describe_method
from mimbench.report.plots.picture_rows import draw_grid
from mimbench.report.plots.pictures import open_picture
from mimbench.report.plots.series import Series, build_series, group_by, make_setting_key, short_names
from mimbench.report.plots.sheet import Sheet
from mimbench.report.plots.source import NothingToPlot, Options, Source
from mimbench.report.plots.tiles import split_tiles

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE = "reconstruction"
"""The artifact of every record whose pretraining predicts pixels."""
_PARTS = 3
"""Columns of its picture: original, masked, reconstructed."""
_NARROWEST = 0.3
"""Least width of an image, inches."""
_MOST_ROWS = 6


def reconstructions(source: Source, options: Options) -> Sheet:
    """Original, and for each method the masked image and its reconstruction; the first seed of each setting."""
    rows = [row for row in source.rows(options) if PICTURE in source.bodies[row["id"]]["artifacts"]]
    rows = list({(row["method"], row["checkpoint"]): row for row in rows}.values())
    if not rows:
        raise source.nothing_to_plot(
            "reconstructions",
            "records of a method that predicts pixels, with the pictures of their pretrainings",
            "mimbench run --method METHOD --task TASK",
        )
    setting = make_setting_key(rows, lambda row: row["method"])
    series = build_series(rows, setting, source)
    by_setting = group_by(rows, setting)
    readable: list[tuple[Series, list[list[Image]]]] = []
    # Main settings first, controls last, in case there is no room for all.
    for key, entry in sorted(
        series.items(), key=lambda item: (describe_method(item[1].method).is_control, item[1].place)
    ):
        first = min(by_setting[key], key=lambda row: row["seed"])
        picture = open_picture(source, first, PICTURE, options.width)
        tiles = split_tiles(picture) if picture else None
        if tiles and len(tiles[0]) == _PARTS:
            readable.append((entry, tiles))
    if not readable:
        raise NothingToPlot(
            f"nothing to plot as reconstructions: no readable picture of {len(series)} pretrainings is in "
            f"{source.folder}/artifacts; copy the folder `artifacts` along with `records`"
        )
    most = max(1, int((options.width - _NARROWEST) / (2 * _NARROWEST)))
    shown = [one for one in readable if len(one[1]) == len(readable[0][1])][:most]
    side = options.width / (2 * len(shown) + 1)
    count = min(len(shown[0][1]), _MOST_ROWS, max(1, int(6.5 / side)))
    grid = [
        [shown[0][1][place][0], *(image for _, tiles in shown for image in tiles[place][1:])] for place in range(count)
    ]
    heads = [("Original", 1), *((name, 2) for name in short_names([entry for entry, _ in shown]))]
    note = "Test images, masked, and reconstructed; the first seed of each setting."
    if len(shown) < len(readable):
        note += f" {len(shown)} of {len(readable)} settings; choose others with --method."
    return Sheet([draw_grid(grid, options.width, heads=heads)], (), note, columns=1)
