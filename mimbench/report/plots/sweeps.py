"""Scores over a setting that was varied, with the paper's own curve beside them; over epochs likewise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mimbench.errors import InputError, nearest
from mimbench.recipe import AT_EPOCH, is_of_task
from mimbench.report.plots.groups import chance_keys, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines, axis_of
from mimbench.report.plots.quoted import Figures, Published
from mimbench.report.plots.series import Panel, Titles, grouped, mean_of, named, recipe_of, told
from mimbench.report.plots.sheet import Sheet, key, reference
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import clean, look, metric_label
from mimbench.report.published.numbers import LAST_EPOCH
from mimbench.report.records.frame import is_early
from mimbench.store.sealing import fingerprint

EPOCHS = "pretrain.epochs"
_TITLES = {
    "method.mask_ratio": "Mask ratio",
    EPOCHS: "Pretraining epochs (a full schedule each)",
    AT_EPOCH: "Epochs pretrained (of one schedule)",
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
        raise source.refused(
            "ablation",
            f"records that vary {path or 'a setting'}, all else equal",
            f"mimbench run --method METHOD --task TASK --vary {path or 'method.mask_ratio'}=0.4,0.6,0.8",
        )
    return sheet


def epochs(source: Source, options: Options) -> Sheet:
    """Scores over pretraining: as it goes on, and, in panels of their own, by its length, a full schedule each."""
    on_the_way = _sweep(source, options, AT_EPOCH)
    by_length = _sweep(source, options, EPOCHS) or _sweep(source, options, EPOCHS, loose=True)
    sheets = [sheet for sheet in (on_the_way, by_length) if sheet]
    if not sheets:
        raise source.refused(
            "epochs",
            "one method at two or more epochs of its pretraining",
            f"mimbench run --method METHOD --task TASK --vary {AT_EPOCH}=0,5,10,20",
        )
    legend = {label: artist for sheet in sheets for label, artist in sheet.legend}
    notes = dict.fromkeys(sheet.note for sheet in sheets)
    return Sheet([plot for sheet in sheets for plot in sheet.plots], list(legend.items()), " ".join(notes))


def varied_paths(source: Source, options: Options) -> list[str]:
    """Paths with two or more values within one method; epochs have a kind of their own."""
    rows = source.rows(options)
    paths = dict.fromkeys(path for row in rows for path in source.bodies[row["id"]]["varied"])
    found = []
    for path in paths:
        values = grouped([row for row in rows if row[path] is not None], lambda row: row["method"])
        if path not in (EPOCHS, AT_EPOCH) and any(len({row[path] for row in of}) > 1 for of in values.values()):
            found.append(path)
    return found


@dataclass
class _Swept:
    """Records by series, panel and place on the axis."""

    at: dict[tuple[Panel, Panel], dict[Any, list[Row]]]
    rows: list[Row]
    """All of them."""
    notes: list[str] = field(default_factory=list)


def _sweep(source: Source, options: Options, path: str, *, loose: bool = False) -> Sheet | None:
    """None where no method has two values of `path`. loose: recipes may differ in more than that."""
    published = Published(path)
    rows = source.rows(options, (path, *published.paths), epochs=path == AT_EPOCH)
    ours = [row for row in rows if row["method"] != options.baseline and row[path] is not None]
    if loose:
        ours = [row for row in ours if not is_early(row)]
    setting = _setting(source, path, loose)
    swept = _swept(ours, path, setting, loose)
    if not swept.at:
        return None
    series = named(swept.rows, setting, source, path)
    places, categories = axis_of([value for of in swept.at.values() for value in of])
    titles, panels = Titles(source, swept.rows), list(dict.fromkeys(panel for _, panel in swept.at))
    plots, quoted_notes, means, quoted, levels = [], [], [], [], []
    for panel in sorted(panels, key=str):
        curves = []
        for found, entry in series.items():
            of = swept.at.get((found, panel), {})
            xs = sorted(of, key=lambda value: places[value])
            if of:
                here = tuple(mean_of(of[x], options.spread) for x in xs)
                curves.append(Curve(entry, tuple(places[x] for x in xs), here))
        means += [mean for curve in curves for mean in curve.means]
        first = curves[0].means[0].first
        lines = Lines(
            titles.title(first) if not is_of_task(path) else f"{clean(first['task'])} on {clean(first['dataset'])}",
            _TITLES.get(path, clean(path)),
            metric_label(first["task"], first["metric"], first["unit"]),
            curves,
            levels=_levels(source, rows, panel, path, options),
            categories=categories,
            whole=all(isinstance(value, int) for value in places),
            doubling=path == EPOCHS,
        )
        same, beside = published.around(curves) if not categories else ([], [])
        plots += [replace(lines, quoted=same), *(_beside(lines, found) for found in beside)]
        levels += lines.drawn_levels
        quoted += [*same, *(curve for found in beside for curve in found.curves)]
        quoted_notes += [found.note for found in beside]
    legend = [key(entry, line=True) for entry in series.values()]
    legend += list({curve.label: curve.key() for curve in quoted}.values())
    legend += _level_keys(levels, options)
    notes = [told(means), *swept.notes, *dict.fromkeys(quoted_notes)]
    if quoted:
        notes.append(f"Epochs: {LAST_EPOCH}.")
    return Sheet([lines.plot() for lines in plots], legend, " ".join(notes))


def _setting(source: Source, path: str, loose: bool) -> Callable[[Row], Panel]:
    if loose:
        return lambda row: (row["method"], row["backbone"], row["pretrain_dataset"])
    keys = {id_: fingerprint(recipe_of(body, path)) for id_, body in source.bodies.items()}
    return lambda row: (row["method"], row["encoder"], keys[row["id"]])


def _panel(row: Row, path: str) -> Panel:
    """A task's own setting is part of its protocol: varied, it is the axis, and all the rest has to agree."""
    if not is_of_task(path):
        return row["task"], row["metric"], row["protocol"]
    return row["task"], row["metric"], fingerprint(_without(json.loads(row["protocol_json"]), path))


def _without(protocol: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The protocol without a setting of the task: task.train.epochs, tasks.linear-probe.layer."""
    keys = path.split(".")[1 if path.startswith("task.") else 2 :]
    rest = dict(protocol)
    if len(keys) > 1 and isinstance(rest.get(keys[0]), Mapping):
        rest[keys[0]] = _without(rest[keys[0]], ".".join(["task", *keys[1:]]))
    else:
        rest.pop(keys[0], None)
    return rest


def _swept(rows: Sequence[Row], path: str, setting: Callable[[Row], Panel], loose: bool) -> _Swept:
    at: dict[tuple[Panel, Panel], dict[Any, list[Row]]] = {}
    kept: list[Row] = []
    left = 0
    for place, of in grouped(rows, lambda row: (setting(row), _panel(row, path))).items():
        by_value = grouped(of, lambda row: row[path])
        if len(by_value) < 2:
            continue
        at[place] = {}
        for value, here in by_value.items():
            pretrainings = grouped(here, lambda row: row["pretraining"])
            if loose and len(pretrainings) > 1:
                raise InputError(
                    f"{here[0]['method']} has {len(pretrainings)} settings with {path} = {value}, which are not to be "
                    f"averaged; give records that differ in {path} alone: `mimbench run --vary {path}=...`"
                )
            best = max(pretrainings.values(), key=lambda rows: (len(rows), str(rows[0]["time"])))
            at[place][value] = list({row["seed"]: row for row in best}.values())
            left += len(here) - len(at[place][value])
        kept += [row for here in at[place].values() for row in here]
    notes = [f"{left} other records of the same settings and seeds are left out."] if left else []
    if loose:
        notes.append("The recipes differ in more than their epochs.")
    return _Swept(at, kept, notes)


def _levels(source: Source, rows: Sequence[Row], panel: Panel, path: str, options: Options) -> list[Level]:
    here = [row for row in rows if _panel(row, path) == panel]
    firsts = {row["chance"]: row for row in here if row["chance"] is not None}
    levels = [Level(chance, name=(clean(row["task"]), chance_name(row, source))) for chance, row in firsts.items()]
    of_baseline = [row for row in here if row["method"] == options.baseline]
    if len({row["pretraining"] for row in of_baseline}) == 1:
        mean = mean_of(of_baseline, options.spread)
        levels.append(Level(mean.mean, look(str(options.baseline)).colour, (0, (5, 1, 1, 1)), always=True))
    return levels


def _level_keys(levels: Sequence[Level], options: Options) -> list[Any]:
    keys = chance_keys(level.name for level in levels if not level.always)
    for level in levels:
        if level.always:
            keys.append(reference(f"{clean(options.baseline)} (baseline)", level.colour, level.dash))
            break
    return keys


def _beside(lines: Lines, found: Figures) -> Lines:
    """The paper's panel: another protocol, so an axis of its own."""
    return Lines(found.title, lines.x, found.y, quoted=found.curves, whole=lines.whole, doubling=lines.doubling)
