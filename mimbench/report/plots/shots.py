"""Label efficiency: scores over the number of labels per class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mimbench.report.plots.groups import chance_entries, chance_name
from mimbench.report.plots.lines import Curve, Level, Lines
from mimbench.report.plots.series import (
    Titles,
    build_series,
    describe_means,
    group_by,
    make_setting_key,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import Sheet, key
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import metric_label, task_label
from mimbench.report.scores.choice import ALL_METRICS

_FEW_LABELS = re.compile(r"(?P<metric>\w+?)_(?P<labels>(?P<count>\d+)(?P<unit>shot|percent))")
"""Metrics on few labels, such as top1_5shot and top1_10percent."""


@dataclass(frozen=True)
class _Point:
    row: Row
    metric: str
    labels: float
    """Per class."""


def label_efficiency(source: Source, options: Options) -> Sheet:
    """Scores over labels per class, from the metrics of tasks on few labels."""
    points = [point for row in source.rows(replace(options, metrics=ALL_METRICS)) if (point := _point(source, row))]
    if len({point.labels for point in points}) < 2:
        raise source.nothing_to_plot(
            "label-efficiency",
            "records of a task with two or more numbers of labels per class",
            "mimbench run --method METHOD --task TASK",
        )
    rows = [point.row for point in points]
    setting = make_setting_key(rows, lambda row: (row["task"], row["metric"], row["protocol"]))
    series, titles = build_series(rows, setting, source), Titles(source, rows)
    panels, means, chance = [], [], []
    for group in group_by(points, lambda point: (point.row["task"], point.metric, point.row["protocol"])).values():
        curves = []
        by_setting = group_by(group, lambda point: setting(point.row))
        for setting_key, entry in series.items():
            at = group_by(by_setting.get(setting_key, []), lambda point: point.labels)
            xs = sorted(at)
            if xs:
                here = tuple(mean_over_seeds([point.row for point in at[x]], options.spread) for x in xs)
                curves.append(Curve(entry, tuple(xs), here))
        first = group[0].row
        level = source.bodies[first["id"]]["chance"]
        lines = Lines(
            titles.title(first),
            "Labels per class",
            metric_label(first["task"], group[0].metric, first["unit"]),
            curves,
            levels=[Level(level)] if level is not None else [],
            doubling=True,
        )
        chance += [(task_label(first["task"]), chance_name(first, source)) for _ in lines.drawn_levels]
        means += [mean for curve in curves for mean in curve.means]
        panels.append(lines.plot())
    return Sheet(panels, [*(key(entry) for entry in series.values()), *chance_entries(chance)], describe_means(means))


def _point(source: Source, row: Row) -> _Point | None:
    match = _FEW_LABELS.fullmatch(row["metric"])
    if match is None:
        return None
    if match["unit"] == "shot":
        return _Point(row, match["metric"], float(match["count"]))
    labels = _labels_per_class(source.bodies[row["id"]].get("details", {}).get("labels"), match["labels"])
    return _Point(row, match["metric"], labels) if labels else None


def _labels_per_class(counts: Any, name: str) -> float | None:
    """Labels per class of a share of the data; None if the record does not say how many labels it was.

    counts: all labels by the name of the setting, such as {"5shot": 50, "1percent": 40}.
    """
    if not isinstance(counts, Mapping):
        return None
    shots = [(int(one[:-4]), count) for one, count in counts.items() if one.endswith("shot") and one[:-4].isdigit()]
    total = counts.get(name)
    return total * shots[0][0] / shots[0][1] if shots and shots[0][1] and total else None
