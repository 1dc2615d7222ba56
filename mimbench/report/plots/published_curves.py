"""Published curves over a setting: in the panel of our own curves, or in separate panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimbench.report.plots.lines import Curve, PublishedCurve
from mimbench.report.plots.series import group_by
from mimbench.report.plots.style import clean, metric_label
from mimbench.report.published.numbers import find_published, parse_settings, published_rows, to_plugin_name
from mimbench.report.scores.fields import is_number
from mimbench.text import natural_key

_EPOCHS = "pretrain.epochs"
_SHARED = ("paper", "study", "method", "encoder", "task", "metric", "dataset", "resolution", "unit")
"""What the curves of one panel have in common."""


@dataclass(frozen=True)
class PublishedFigure:
    """Curves of one paper, task and metric."""

    title: str
    y: str
    curves: tuple[PublishedCurve, ...]
    note: str


class PublishedCurves:
    """Published numbers in which `path` is varied."""

    def __init__(self, path: str) -> None:
        rows = [row for row in published_rows() if row["study"] and row["reported"] == "own"]
        places = {id(row): _place(row, path) for row in rows}
        self._x = {key: place for key, place in places.items() if place is not None}
        # Rows have no id in the file, so the identity of the object is the key.
        curves = group_by(
            [row for row in rows if id(row) in self._x],
            lambda row: (*(row[name] for name in _SHARED), row["setting"], *_others(row, path)),
        )
        self._curves: list[list[Mapping[str, Any]]] = []
        for points in curves.values():
            # Two rows at one place differ in something that the file does not name, so they form no curve.
            places_of_curve = {self._x[id(row)] for row in points}
            if len(places_of_curve) == len(points) > 1:
                self._curves.append(sorted(points, key=lambda row: self._x[id(row)]))

    @property
    def paths(self) -> list[str]:
        """Paths of recipes by which `match` recognises the published variant of a record."""
        rows = [row for curve in self._curves for row in curve]
        return list(dict.fromkeys(path for row in rows for path in parse_settings(row["same"])))

    def match(self, curves: Sequence[Curve]) -> tuple[list[PublishedCurve], list[PublishedFigure]]:
        """Published curves of the methods of our curves.

        Returns:
            Curves with exactly our settings and protocol, which share the panel of ours; and, for methods without any,
            separate figures: with our task and metric if there are any, else all that the method's paper measured.
        """
        same_panel, figures = [], []
        for method in dict.fromkeys(curve.series.method for curve in curves):
            ours = [mean.first for curve in curves if curve.series.method == method for mean in curve.means]
            candidates = [curve for curve in self._curves if to_plugin_name(curve[0]["method"]) == method]
            candidates = [curve for curve in candidates if _is_same_variant(curve[0], ours)] or candidates
            matching = [
                curve
                for curve in candidates
                if any(find_published(record, [row]).number for record in ours for row in curve)
            ]
            if matching:
                same_panel += self._to_curves(method, matching)
                continue
            measured = (ours[0]["task"], ours[0]["metric"])
            others = [curve for curve in candidates if (curve[0]["task"], curve[0]["metric"]) == measured] or candidates
            panels = group_by(others, lambda curve: tuple(curve[0][name] for name in _SHARED))
            figures += [self._to_figure(method, group) for group in panels.values()]
        return same_panel, figures

    def _to_figure(self, method: str, curves: Sequence[Sequence[Mapping[str, Any]]]) -> PublishedFigure:
        first = curves[0][0]
        doubts = "; ".join(dict.fromkeys(row["doubt"] for curve in curves for row in curve if row["doubt"]))
        title = f"Published: {first['method']}, {first['encoder']}, {first['task']} on {first['dataset']}"
        note = f"Published: {first['paper']}, {first['source']}{f' ({doubts})' if doubts else ''}."
        return PublishedFigure(
            clean(title),
            metric_label(first["task"], first["metric"], first["unit"]),
            tuple(self._to_curves(method, curves)),
            clean(note),
        )

    def _to_curves(self, method: str, curves: Sequence[Sequence[Mapping[str, Any]]]) -> list[PublishedCurve]:
        return [
            PublishedCurve(
                method,
                clean(f"published: {points[0]['setting'] or points[0]['method']}"),
                tuple(self._x[id(row)] for row in points),
                tuple(float(row["value"]) for row in points),
                place,
                len(curves),
            )
            for place, points in enumerate(sorted(curves, key=lambda points: natural_key(points[0]["setting"])))
        ]


def _place(row: Mapping[str, Any], path: str) -> float | None:
    value = row["epochs"] if path == _EPOCHS else parse_settings(row["same"]).get(path)
    return float(value) if value is not None and is_number(value) else None


def _others(row: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """All other settings, which have to be equal along a curve."""
    rest = {name: value for name, value in parse_settings(row["same"]).items() if name != path}
    return (tuple(sorted(map(str, rest.items()))), None if path == _EPOCHS else row["epochs"])


def _is_same_variant(row: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the settings of a published curve that are words, such as the kind of masking, are those of a record."""
    words = {path: value for path, value in parse_settings(row["same"]).items() if isinstance(value, str)}
    return any(all(record.get(path) in (None, value) for path, value in words.items()) for record in records)
