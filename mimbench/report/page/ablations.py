"""Scores over each setting that was varied, as data, with the curves that papers published over the same setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mimbench.recipe import AT_EPOCH
from mimbench.report.page.board import LAST_RESORTS, Board, numbers_of
from mimbench.report.plots.lines import Curve, PublishedCurve
from mimbench.report.plots.published_curves import PublishedCurves
from mimbench.report.plots.series import Mean, Series
from mimbench.report.published.numbers import describe_epochs, load_published, to_plugin_name
from mimbench.report.records.frame import build_frame, is_early, to_rows
from mimbench.report.scores.fields import format_value, sort_key
from mimbench.report.scores.score import Key, Score

_TITLES = {AT_EPOCH: "epochs pretrained", "pretrain.epochs": "pretraining epochs, a full schedule each"}
_Curves = Mapping[Key, Sequence[Score]]
"""Scores in the order of the varied value, by all the rest."""


def ablations(
    board: Board, numbers: Mapping[str, int], bodies: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each varied path: the curves over its values by column, and the published ones in or beside them.

    Args:
        numbers: of runs, by id.
        bodies: records, by id.
    """
    found = []
    for path in sorted((name for name in board.grid.row_fields if "." in name), key=lambda name: name == AT_EPOCH):
        panels = _panels(board, path)
        if not panels:
            continue
        told: dict[str, Any] = {"path": path, "title": _TITLES.get(path, path), "panels": [], "published_figures": []}
        published = _Beside(path, panels, bodies)
        for index, curves in panels.items():
            same, beside = published.around(curves)
            told["published_figures"] += [figure for figure in beside if figure not in told["published_figures"]]
            told["panels"].append(
                {
                    "column": index,
                    "curves": [_curve(path, key, of, numbers) for key, of in curves.items()],
                    "published": same,
                    "figures": [told["published_figures"].index(figure) for figure in beside],
                }
            )
        found.append(told)
    return found


def _panels(board: Board, path: str) -> dict[int, _Curves]:
    """By number of column: the curves that have more than one place."""
    grid = board.grid
    one_encoder = len({score.shared["backbone"] for score in grid.scores.values()}) == 1
    unsaid = {*LAST_RESORTS, *(("encoder",) if one_encoder else ())}
    columns = {column: index for index, column in enumerate(grid.column_keys)}
    curves: dict[tuple[int, Key], list[Score]] = {}
    for (row, column), score in grid.scores.items():
        rest = dict(zip(grid.row_fields, row, strict=True))
        if rest.pop(path) is None or score.problem:
            continue
        key = tuple(_rest(name, other, score) for name, other in rest.items() if name not in unsaid)
        curves.setdefault((columns[column], key), []).append(score)
    panels: dict[int, dict[Key, Sequence[Score]]] = {}
    for (index, key), scores in sorted(curves.items(), key=lambda entry: (entry[0][0], repr(entry[0][1]))):
        if len({repr(score.fields[path]) for score in scores}) > 1:
            panels.setdefault(index, {})[key] = sorted(scores, key=lambda score: sort_key(score.fields[path]))
    return dict(panels)


def _rest(name: str, other: Any, score: Score) -> Any:
    """A field of a curve's key: the end of a pretraining is no setting; of what --set gave, only what is no field."""
    if name == AT_EPOCH:
        return describe_epochs(score.shared) if is_early(score.shared) else None
    if name == "set" and other:
        parts = re.split(r" (?=[\w.-]+=)", other)
        return " ".join(part for part in parts if part.partition("=")[0] not in score.fields)
    return f"{name}={format_value(other)}" if "." in name and other is not None else other


def _curve(path: str, key: Key, scores: Sequence[Score], numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "label": _label(key),
        "method": str(key[0]),
        "points": [
            {
                "x": score.fields[path],
                **numbers_of(score),
                "runs": [numbers[name] for name in score.records.values()],
            }
            for score in scores
        ],
    }


def _label(key: Key) -> str:
    return " ".join(str(part) for part in key if part not in (None, ""))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Beside:
    """What papers published over a setting, for the panels of a page: found as plots find it."""

    def __init__(self, path: str, panels: Mapping[int, _Curves], bodies: Mapping[str, Mapping[str, Any]]) -> None:
        self._path = path
        self._published = PublishedCurves(path)
        known = (
            {to_plugin_name(name) for name in load_published()["method"].unique()} if self._published.paths else set()
        )
        firsts = {
            score.shared["id"]: None
            for curves in panels.values()
            for scores in curves.values()
            for score in scores
            if score.shared["method"] in known
        }
        asked = [(None, bodies[name]) for name in firsts]
        self._rows = {(row["id"], row["metric"]): row for row in to_rows(build_frame(asked, self._published.paths))}
        """First rows of means, with the settings by which a published variant is known."""

    def around(self, curves: _Curves) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Curves for the panel itself, and whole panels for beside it: the latter beside primary metrics alone."""
        ours = []
        for key, scores in curves.items():
            rows = [self._rows.get((score.shared["id"], score.shared["metric"])) for score in scores]
            xs = [score.fields[self._path] for score in scores]
            if all(rows) and all(map(_is_number, xs)):
                means = tuple(Mean((row["value"],), (row,), "sd") for row in rows if row)
                ours.append(Curve(Series(str(key[0]), _label(key)), tuple(map(float, xs)), means))
        same, beside = self._published.match(ours)
        figures = [{"title": one.title, "y": one.y, "note": one.note, "curves": _as_data(one.curves)} for one in beside]
        if not next(iter(curves.values()))[0].shared["primary"]:
            figures = []
        return _as_data(same), figures


def _as_data(curves: Iterable[PublishedCurve]) -> list[dict[str, Any]]:
    return [
        {
            "label": curve.label,
            "method": curve.method,
            "place": curve.place,
            "points": [{"x": x, "y": y} for x, y in zip(curve.xs, curve.ys, strict=True)],
        }
        for curve in curves
    ]
