"""Published curves over a setting, for the panels beside our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimbench.report.plots.lines import Curve, Quoted
from mimbench.report.plots.series import grouped, natural
from mimbench.report.plots.style import clean, metric_label
from mimbench.report.published.numbers import find_published, load_published, parse_settings, to_plugin_name
from mimbench.report.records.frame import to_rows

_EPOCHS = "pretrain.epochs"
_SHARED = ("paper", "study", "method", "encoder", "task", "metric", "dataset", "resolution", "unit")
"""What the curves of one panel have in common."""


@dataclass(frozen=True)
class Figures:
    """Curves of one paper, task and metric."""

    title: str
    y: str
    curves: tuple[Quoted, ...]
    note: str


class Published:
    """Published numbers in which `path` is varied."""

    def __init__(self, path: str) -> None:
        rows = [row for row in to_rows(load_published()) if row["study"] and row["reported"] == "own"]
        places = {id(row): _place(row, path) for row in rows}
        self._x = {key: place for key, place in places.items() if place is not None}
        curves = grouped(
            [row for row in rows if id(row) in self._x],
            lambda row: (*(row[name] for name in _SHARED), row["setting"], *_others(row, path)),
        )
        self._curves = [
            sorted(of, key=lambda row: self._x[id(row)])
            for of in curves.values()
            if len({self._x[id(row)] for row in of}) == len(of) > 1
        ]

    @property
    def paths(self) -> list[str]:
        """Paths of recipes by which `around` knows which record is which variant."""
        return list(dict.fromkeys(at for of in self._curves for row in of for at in parse_settings(row["same"])))

    def around(self, curves: Sequence[Curve]) -> tuple[list[Quoted], list[Figures]]:
        """Published curves of our very settings and protocol, to share their panel; else some for panels beside.

        Beside: of our own task and metric where there are any, else whatever the method's paper measured.
        """
        same, beside = [], []
        for method in dict.fromkeys(curve.series.method for curve in curves):
            own = [mean.first for curve in curves if curve.series.method == method for mean in curve.means]
            theirs = [of for of in self._curves if to_plugin_name(of[0]["method"]) == method]
            theirs = [of for of in theirs if _alike(of[0], own)] or theirs
            matching = [
                of for of in theirs if any(find_published(record, [row]).number for record in own for row in of)
            ]
            same += self._quoted(method, matching)
            wanted = (own[0]["task"], own[0]["metric"])
            rest = [] if matching else theirs
            rest = [of for of in rest if (of[0]["task"], of[0]["metric"]) == wanted] or rest
            panels = grouped(rest, lambda of: tuple(of[0][name] for name in _SHARED))
            beside += [self._figures(method, of) for of in panels.values()]
        return same, beside

    def _figures(self, method: str, curves: Sequence[Sequence[Mapping[str, Any]]]) -> Figures:
        first = curves[0][0]
        doubts = "; ".join(dict.fromkeys(row["doubt"] for of in curves for row in of if row["doubt"]))
        title = f"Published: {first['method']}, {first['encoder']}, {first['task']} on {first['dataset']}"
        note = f"Published: {first['paper']}, {first['source']}{f' ({doubts})' if doubts else ''}."
        return Figures(
            clean(title),
            metric_label(first["task"], first["metric"], first["unit"]),
            tuple(self._quoted(method, curves)),
            clean(note),
        )

    def _quoted(self, method: str, curves: Sequence[Sequence[Mapping[str, Any]]]) -> list[Quoted]:
        return [
            Quoted(
                method,
                clean(f"published: {of[0]['setting'] or of[0]['method']}"),
                tuple(self._x[id(row)] for row in of),
                tuple(float(row["value"]) for row in of),
                place,
                len(curves),
            )
            for place, of in enumerate(sorted(curves, key=lambda of: natural(of[0]["setting"])))
        ]


def _place(row: Mapping[str, Any], path: str) -> float | None:
    value = row["epochs"] if path == _EPOCHS else parse_settings(row["same"]).get(path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _others(row: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """All that has to be equal along a curve."""
    rest = {at: value for at, value in parse_settings(row["same"]).items() if at != path}
    return (tuple(sorted(map(str, rest.items()))), None if path == _EPOCHS else row["epochs"])


def _alike(row: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what a published curve names by words (kind of masking) is as in one of our records."""
    words = {at: value for at, value in parse_settings(row["same"]).items() if isinstance(value, str)}
    return any(all(record.get(at) in (None, value) for at, value in words.items()) for record in records)
