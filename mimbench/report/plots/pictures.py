"""Pictures that tasks saved with their records, collected in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mimbench.display import command_for, describe_task, described_tasks
from mimbench.report.plots.picture_rows import draw_grid
from mimbench.report.plots.series import Titles, build_series, by_protocol, group_by, make_setting_key
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import NothingToPlot, Options, Row, Source
from mimbench.report.plots.style import clean
from mimbench.report.plots.tiles import split_tiles
from mimbench.store.artifacts import OutsideError, damage_of, find_artifact
from mimbench.text import list_first

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

MOST = 12
_NAMES, _NARROWEST = 0.8, 0.62
"""Width of the names at the left, and least width of an image in a grid, inches."""
_TALLEST = 7.8
"""Height of a picture, inches; taller ones are scaled down."""
_RESOLUTION = 300
"""Pixels per inch above which a picture is reduced."""


def pictures(kind: str, source: Source, options: Options) -> Sheet:
    """The picture of each setting and protocol, of its first seed."""
    artifacts = picture_kinds()[kind]
    rows = [row for row in source.rows(options) if _artifact(source, row, artifacts)]
    rows = list({row["id"]: row for row in rows}.values())
    if not rows:
        tasks = " or ".join(artifacts)
        raise source.nothing_to_plot(kind, f"records of {tasks} with their pictures", command_for(kind))
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    places = group_by(rows, lambda row: (setting(row), by_protocol(row)))
    shown = [min(group, key=lambda row: row["seed"]) for group in places.values()]
    shown.sort(key=lambda row: (by_protocol(row), list(series).index(setting(row))))
    plots: list[Plot] = []
    shown_pictures: list[_SettingPicture] = []
    missing: list[str] = []
    for row in shown:
        picture = open_picture(source, row, artifacts[row["task"]], options.width)
        if picture is None:
            missing.append(row["id"])
        elif len(shown_pictures) < MOST:
            shown_pictures.append(_SettingPicture(row, picture, series[setting(row)].label, titles.title(row)))
    for group in group_by(shown_pictures, lambda one: (by_protocol(one.row), one.row["dataset"])).values():
        plots += _grid(kind, group, options.width) or [
            _plot(one.picture, one.full_label, options.width) for one in group
        ]
    if not plots:
        raise NothingToPlot(
            f"nothing to plot as {kind}: no readable picture of {len(missing)} records is in "
            f"{source.folder}/artifacts; copy the folder `artifacts` along with `records`, or run the task again"
        )
    count = len(shown) - len(missing)
    notes = ["The first seed of each setting."]
    if count > len(shown_pictures):
        notes.append(f"{len(shown_pictures)} of {count} settings; choose others with --method and --task.")
    if missing:
        notes.append(f"Missing or damaged pictures: {list_first([clean(name) for name in missing])}.")
    return Sheet(plots, (), " ".join(notes), columns=1)


@dataclass(frozen=True)
class _SettingPicture:
    """The picture of one setting."""

    row: Row
    picture: Image
    name: str
    title: str

    @property
    def full_label(self) -> str:
        return f"{self.name}, seed {self.row['seed']}: {self.title}"


def _grid(kind: str, shown_pictures: Sequence[_SettingPicture], width: float) -> list[Plot] | None:
    """All pictures of one task as one grid: the row that they share, and one of each setting.

    None: the display file names no shared row, or the pictures are not two rows of equal images.
    """
    shared_row = describe_task(shown_pictures[0].row["task"]).pictures[kind].shared_row
    tiles = [split_tiles(one.picture) for one in shown_pictures] if shared_row else []
    first = tiles[0] if tiles else None
    if not first or any(rows is None or len(rows) != 2 or len(rows[0]) != len(first[0]) for rows in tiles):
        return None
    count = min(len(first[0]), max(1, int((width - _NAMES) / _NARROWEST)))
    size = first[0][0].size
    rows = [first[0], *(rows[1] for rows in tiles if rows)]
    grid = [[image.resize(size) for image in row[:count]] for row in rows]
    plot = draw_grid(grid, width, row_names=[shared_row, *(one.name for one in shown_pictures)])
    return [replace(plot, title=shown_pictures[0].title)]


def picture_kinds() -> dict[str, dict[str, str]]:
    """{kind of plot: {task: its artifact of that kind}}, as the tasks' display files say."""
    kinds: dict[str, dict[str, str]] = {}
    for task, display in described_tasks().items():
        for kind, picture in display.pictures.items():
            kinds.setdefault(kind, {})[task] = picture.artifact
    return kinds


def _artifact(source: Source, row: Row, artifacts: Mapping[str, str]) -> str | None:
    """The path of a record's picture, within its results folder; None if it has none of this kind."""
    path: str | None = source.bodies[row["id"]]["artifacts"].get(artifacts.get(row["task"], ""))
    return path


def open_picture(source: Source, row: Row, name: str, width: float) -> Image | None:
    """A record's picture; None if it is missing, damaged, no picture, or outside of the results folder."""
    from PIL import Image as Images

    folder, body = source.folder_of(row["id"]), source.bodies[row["id"]]
    if folder is None:
        return None
    try:
        path = find_artifact([folder], body["artifacts"][name])
    except OutsideError:
        return None
    if path is None or damage_of(path, body.get("artifacts_sha256", {}).get(name)):
        return None
    try:
        with Images.open(path, formats=("PNG", "JPEG")) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Images.DecompressionBombError):
        return None
    side = int(width * _RESOLUTION)
    picture.thumbnail((side, 8 * side))
    return picture


def _plot(picture: Image, label: str, width: float) -> Plot:
    def draw(axes: Axes) -> None:
        axes.imshow(picture, interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return Plot(draw, label, min(0.25 + (width - 0.1) * picture.height / picture.width, _TALLEST), indent=0.1)
