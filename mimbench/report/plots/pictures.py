"""Pictures that tasks left with their records, collected in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mimbench.display import command_for, described_tasks
from mimbench.report.plots.series import Titles, by_protocol, grouped, named, settings_of
from mimbench.report.plots.sheet import Plot, Sheet
from mimbench.report.plots.source import NothingToPlot, Options, Row, Source
from mimbench.report.plots.style import clean
from mimbench.store.artifacts import OutsideError, damage_of, find_artifact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

MOST = 12
_TALLEST = 7.8
"""Height of a picture, inches: what is taller is shown smaller."""
_RESOLUTION = 300
"""Pixels an inch beyond which a picture is reduced."""


def pictures(kind: str, source: Source, options: Options) -> Sheet:
    """The picture of each setting and protocol, of its first seed."""
    if options.baseline:
        raise source.no_baseline(kind)
    artifacts = picture_kinds()[kind]
    rows = [row for row in source.rows(options) if _artifact(source, row, artifacts)]
    rows = list({row["id"]: row for row in rows}.values())
    if not rows:
        tasks = " or ".join(artifacts)
        raise source.refused(kind, f"records of {tasks} with their pictures", command_for(kind))
    setting, titles = settings_of(rows), Titles(source, rows)
    series = named(rows, setting, source)
    places = grouped(rows, lambda row: (setting(row), by_protocol(row)))
    shown = [min(of, key=lambda row: row["seed"]) for of in places.values()]
    shown.sort(key=lambda row: (by_protocol(row), list(series).index(setting(row))))
    plots: list[Plot] = []
    missing: list[str] = []
    for row in shown:
        picture = _opened(source, row, artifacts[row["task"]], options.width)
        if picture is None:
            missing.append(row["id"])
        elif len(plots) < MOST:
            label = f"{series[setting(row)].label}, seed {row['seed']}: {titles.title(row)}"
            plots.append(_plot(picture, label, options.width))
    if not plots:
        raise NothingToPlot(
            f"nothing to plot as {kind}: no sound picture of {len(missing)} records is in {source.folder}/artifacts; "
            "copy the folder `artifacts` along with `records`, or run the task again"
        )
    count = len(shown) - len(missing)
    notes = ["The first seed of each setting."]
    if count > len(plots):
        notes.append(f"{len(plots)} of {count} settings; choose others with --method and --task.")
    if missing:
        notes.append(
            f"Without their pictures, which are missing or damaged: {', '.join(map(clean, missing[:3]))}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}."
        )
    return Sheet(plots, (), " ".join(notes), columns=1)


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


def _opened(source: Source, row: Row, name: str, width: float) -> Image | None:
    """None when it is not there, is no picture, is damaged, or lies outside the results folder."""
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
