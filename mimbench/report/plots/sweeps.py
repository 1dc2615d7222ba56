"""Scores over a setting that was varied, or over epochs, with the curves that papers published."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mimbench.display import paper_name, setting_label
from mimbench.errors import InputError, nearest
from mimbench.recipe import AT, AT_EPOCH, AT_STEP, is_of_task
from mimbench.report.plots.equal_settings import settings_without
from mimbench.report.plots.groups import chance_entries, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines, place_values
from mimbench.report.plots.published_curves import PublishedCurves, PublishedFigure
from mimbench.report.plots.series import (
    Panel,
    Titles,
    build_series,
    describe_means,
    group_by,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import clean, method_style, metric_label, task_label
from mimbench.report.published.numbers import LAST_EPOCH
from mimbench.store.sealing import fingerprint

EPOCHS = "pretrain.epochs"
STEPS = "pretrain.steps"
_TITLES = {
    EPOCHS: "Pretraining epochs (a full schedule each)",
    AT_EPOCH: "Epochs pretrained (of one schedule)",
    STEPS: "Pretraining steps (a full schedule each)",
    AT_STEP: "Steps pretrained (of one schedule)",
}


def ablation(source: Source, options: Options) -> Sheet:
    """Scores over `options.over`, or over the one path that the records vary.

    Raises:
        InputError: nothing was varied, or several paths were and none is chosen.
    """
    paths = varied_paths(source, options)
    if options.over is None and len(paths) > 1:
        raise InputError(f"the records vary {', '.join(paths)}: choose one with --over PATH")
    path = options.over or next(iter(paths), None)
    sheet = _sweep(source, options, path) if path else None
    if sheet is None:
        if path and path not in paths and paths:
            raise InputError(f"--over {path}: no method has two values of it, all else equal{nearest(path, paths)}")
        raise source.nothing_to_plot(
            "ablation",
            f"records that vary {path or 'a setting'}, all else equal",
            f"mimbench run --method METHOD --task TASK --vary {path or 'method.mask_ratio'}=0.4,0.6,0.8",
        )
    return sheet


def epochs(source: Source, options: Options) -> Sheet:
    """Scores over pretraining: as it goes on, and, in separate panels, by its length, a full schedule each."""
    on_the_way = [_sweep(source, options, path) for path in AT]
    by_length = [_sweep(source, options, path) or _sweep(source, options, path, loose=True) for path in (EPOCHS, STEPS)]
    sheets = [sheet for sheet in (*on_the_way, *by_length) if sheet]
    if not sheets:
        raise source.nothing_to_plot(
            "epochs",
            "one method at two or more epochs of its pretraining",
            f"mimbench run --method METHOD --task TASK --vary {AT_EPOCH}=0,5,10,20",
        )
    legend = {label: artist for sheet in sheets for label, artist in sheet.legend}
    notes = dict.fromkeys(sheet.note for sheet in sheets)
    return Sheet([plot for sheet in sheets for plot in sheet.plots], list(legend.items()), " ".join(notes))


def varied_paths(source: Source, options: Options) -> list[str]:
    """Paths with two or more values within one method; epochs are a separate kind of plot."""
    rows = source.rows(options)
    paths = dict.fromkeys(path for row in rows for path in source.bodies[row["id"]]["varied"])
    varied = []
    for path in paths:
        values: dict[str, set[Any]] = {}
        for row in rows:
            if row[path] is not None:
                values.setdefault(row["method"], set()).add(row[path])
        if path not in (EPOCHS, STEPS, *AT) and any(len(of_method) > 1 for of_method in values.values()):
            varied.append(path)
    return varied


@dataclass
class _Sweep:
    """Records by (series, panel), and by value on the axis."""

    at: dict[tuple[Panel, Panel], dict[Any, list[Row]]]
    rows: list[Row]
    """All of them."""
    notes: list[str] = field(default_factory=list)


def _sweep(source: Source, options: Options, path: str, *, loose: bool = False) -> Sheet | None:
    """Scores over `path`; None if no method has two values of it.

    Args:
        loose: recipes may differ in other settings too.
    """
    published = PublishedCurves(path)
    rows = source.rows(options, (path, *published.paths), epochs=path in AT)
    ours = [row for row in rows if row["method"] != options.baseline and row[path] is not None]
    if loose:
        ours = [row for row in ours if row["final"]]
    setting = _series_key(source, path, loose)
    swept = _collect_sweep(ours, path, setting, loose)
    if not swept.at:
        return None
    series = build_series(swept.rows, setting, source, path)
    places, categories = place_values([value for rows_at in swept.at.values() for value in rows_at])
    titles, panels = Titles(source, swept.rows), list(dict.fromkeys(panel for _, panel in swept.at))
    plots, quoted_notes, means, quoted, levels = [], [], [], [], []
    for panel in sorted(panels, key=str):
        curves = []
        for series_key, entry in series.items():
            rows_at = swept.at.get((series_key, panel), {})
            if rows_at:
                xs = sorted(rows_at, key=lambda value: places[value])
                here = tuple(mean_over_seeds(rows_at[x], options.spread) for x in xs)
                curves.append(Curve(entry, tuple(places[x] for x in xs), here))
        means += [mean for curve in curves for mean in curve.means]
        first = curves[0].means[0].first
        lines = Lines(
            titles.title(first)
            if not is_of_task(path)
            else f"{task_label(first['task'])} on {clean(paper_name(first['dataset']))}",
            _TITLES.get(path) or clean(setting_label(path)),
            metric_label(first["task"], first["metric"], first["unit"]),
            curves,
            levels=_levels(source, rows, panel, path, options),
            categories=categories,
            whole=all(isinstance(value, int) for value in places),
            doubling=path in (EPOCHS, STEPS),
        )
        is_matched = options.published and not categories
        same_panel, figures = published.match(curves) if is_matched else ([], [])
        plots += [replace(lines, quoted=same_panel), *(_published_panel(lines, figure) for figure in figures)]
        levels += lines.drawn_levels
        quoted += [*same_panel, *(curve for figure in figures for curve in figure.curves)]
        quoted_notes += [figure.note for figure in figures]
    legend = [key(entry, line=True) for entry in series.values()]
    legend += list({curve.label: curve.key() for curve in quoted}.values())
    legend += _level_keys(levels, options)
    notes = [describe_means(means), *swept.notes, *dict.fromkeys(quoted_notes)]
    if quoted:
        notes.append(f"Epochs: {LAST_EPOCH}.")
    return Sheet([lines.plot() for lines in plots], legend, " ".join(notes))


def _series_key(source: Source, path: str, loose: bool) -> Callable[[Row], Panel]:
    if loose:
        return lambda row: (row["method"], row["backbone"], row["pretrain_dataset"])
    keys = settings_without(source, [path])
    return lambda row: (row["method"], row["encoder"], keys[row["id"]])


def _panel(row: Row, path: str) -> Panel:
    """The panel of a row. If `path` is a setting of the task, rows that differ only in it share the panel."""
    if not is_of_task(path):
        return row["task"], row["metric"], row["protocol"]
    return row["task"], row["metric"], fingerprint(_without(json.loads(row["protocol_json"]), path))


def _without(protocol: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The protocol without the setting at a path such as "task.train.epochs" or "tasks.linear-probe.layer"."""
    keys = path.split(".")[1 if path.startswith("task.") else 2 :]
    rest = dict(protocol)
    if len(keys) > 1 and isinstance(rest.get(keys[0]), Mapping):
        rest[keys[0]] = _without(rest[keys[0]], ".".join(["task", *keys[1:]]))
    else:
        rest.pop(keys[0], None)
    return rest


def _collect_sweep(rows: Sequence[Row], path: str, setting: Callable[[Row], Panel], loose: bool) -> _Sweep:
    """The records of each curve that has two or more values of `path`, one per value and seed."""
    at: dict[tuple[Panel, Panel], dict[Any, list[Row]]] = {}
    used: list[Row] = []
    left_out = 0
    for curve, group in group_by(rows, lambda row: (setting(row), _panel(row, path))).items():
        by_value = group_by(group, lambda row: row[path])
        if len(by_value) < 2:
            continue
        at[curve] = {}
        for value, rows_at in by_value.items():
            pretrainings = group_by(rows_at, lambda row: row["pretraining"])
            if loose and len(pretrainings) > 1:
                raise InputError(
                    f"{rows_at[0]['method']} has {len(pretrainings)} settings with {path} = {value}, which cannot be "
                    f"averaged; use records that differ only in {path}: `mimbench run --vary {path}=...`"
                )
            # The pretraining with the most records, or the newest of these; a seed that was run twice counts once.
            chosen = max(pretrainings.values(), key=lambda rows: (len(rows), str(rows[0]["time"])))
            at[curve][value] = list({row["seed"]: row for row in chosen}.values())
            left_out += len(rows_at) - len(at[curve][value])
        used += [row for rows_at in at[curve].values() for row in rows_at]
    notes = [f"{left_out} other records of the same settings and seeds are left out."] if left_out else []
    if loose:
        notes.append("The recipes differ in more than their epochs.")
    return _Sweep(at, used, notes)


def _levels(source: Source, rows: Sequence[Row], panel: Panel, path: str, options: Options) -> list[Level]:
    """Lines at chance, and at the baseline if one setting of it is in the panel."""
    here = [row for row in rows if _panel(row, path) == panel]
    firsts = {row["chance"]: row for row in here if row["chance"] is not None}
    levels = [Level(chance, name=(task_label(row["task"]), chance_name(row, source))) for chance, row in firsts.items()]
    of_baseline = [row for row in here if row["method"] == options.baseline]
    if len({row["pretraining"] for row in of_baseline}) == 1:
        mean = mean_over_seeds(of_baseline, options.spread)
        levels.append(Level(mean.mean, method_style(str(options.baseline)).colour, (0, (5, 1, 1, 1)), always=True))
    return levels


def _level_keys(levels: Sequence[Level], options: Options) -> list[Any]:
    keys = chance_entries(level.name for level in levels if not level.always)
    for level in levels:
        if level.always:
            keys.append(reference(f"{clean(options.baseline)} (baseline)", level.colour, level.dash))
            break
    return keys


def _published_panel(lines: Lines, figure: PublishedFigure) -> Lines:
    """A panel of published curves: another protocol, so a separate axis."""
    return Lines(figure.title, lines.x, figure.y, quoted=figure.curves, whole=lines.whole, doubling=lines.doubling)
