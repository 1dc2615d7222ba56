"""Scores over each setting that was varied, as data, with the curves that papers published over the same setting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mimbench.display import describe_method, setting_label
from mimbench.recipe import AT, AT_EPOCH, AT_STEP
from mimbench.report.page.leaderboard import LAST_RESORTS, Leaderboard
from mimbench.report.plots.lines import Curve, PublishedCurve
from mimbench.report.plots.published_curves import PublishedCurves
from mimbench.report.plots.series import Mean, Series
from mimbench.report.published.numbers import describe_epochs, load_published, to_plugin_name
from mimbench.report.records.frame import build_frame, to_rows
from mimbench.report.scores.fields import format_value, is_number, sort_key
from mimbench.report.scores.score import Key, Score

_TITLES = {
    AT_EPOCH: "Epochs pretrained",
    AT_STEP: "Steps pretrained",
    "pretrain.epochs": "Pretraining epochs, a full schedule each",
    "pretrain.steps": "Pretraining steps, a full schedule each",
}
_Curves = Mapping[Key, Sequence[Score]]
"""Scores in the order of the varied value, by all the rest."""


def describe_ablations(
    board: Leaderboard, numbers: Mapping[str, int], bodies: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For each varied path: the curves over its values by column, and the published curves over the same path.

    Args:
        numbers: of runs, by id.
        bodies: records, by id.
    """
    described = []
    varied = [name for name in board.grid.row_fields if "." in name]
    # Epochs come last.
    for path in sorted(varied, key=lambda name: name in AT):
        panels = _panels(board, path)
        if not panels:
            continue
        published = _PublishedOfPath(path, panels, bodies)
        all_figures: list[dict[str, Any]] = []  # each once, though several panels may refer to it
        described_panels = []
        for column, curves in panels.items():
            same_panel, figures = published.match(curves)
            all_figures += [figure for figure in figures if figure not in all_figures]
            described_panels.append(
                {
                    "column": column,
                    "curves": [_curve(path, key, scores, numbers) for key, scores in curves.items()],
                    "published": same_panel,
                    "figures": [all_figures.index(figure) for figure in figures],
                }
            )
        title = _TITLES.get(path) or setting_label(path)
        described.append({"path": path, "title": title, "panels": described_panels, "published_figures": all_figures})
    return described


def _panels(board: Leaderboard, path: str) -> dict[int, _Curves]:
    """By number of column: the curves with two or more values of the path."""
    grid = board.grid
    one_encoder = len({score.shared["backbone"] for score in grid.scores.values()}) == 1
    unlabelled = {*LAST_RESORTS, *(("encoder",) if one_encoder else ())}
    columns = {column: index for index, column in enumerate(grid.column_keys)}
    curves: dict[tuple[int, Key], list[Score]] = {}
    for (row, column), score in grid.scores.items():
        rest = dict(zip(grid.row_fields, row, strict=True))
        if rest.pop(path) is None or score.problem:
            continue
        key = tuple(_rest(name, other, score) for name, other in rest.items() if name not in unlabelled)
        curves.setdefault((columns[column], key), []).append(score)
    panels: dict[int, dict[Key, Sequence[Score]]] = {}
    for (index, key), scores in sorted(curves.items(), key=lambda entry: (entry[0][0], repr(entry[0][1]))):
        if len({repr(score.fields[path]) for score in scores}) > 1:
            panels.setdefault(index, {})[key] = sorted(scores, key=lambda score: sort_key(score.fields[path]))
    return dict(panels)


def _rest(name: str, other: Any, score: Score) -> Any:
    """A field of a curve's key, as its label shows it; None if it shows nothing.

    The last epoch is no setting. Settings passed with --set that are separate fields are left out of "set".
    """
    if name in AT:
        return describe_epochs(score.shared) if score.is_early else None
    if name == "set" and other:
        parts = re.split(r" (?=[\w.-]+=)", other)
        return " ".join(part for part in parts if part.partition("=")[0] not in score.fields)
    return f"{setting_label(name)}={format_value(other)}" if "." in name and other is not None else other


def _curve(path: str, key: Key, scores: Sequence[Score], numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "label": _label(key),
        "method": str(key[0]),
        "points": [
            {
                "x": score.fields[path],
                **score.summary.as_json(),
                "runs": [numbers[name] for name in score.records.values()],
            }
            for score in scores
        ],
    }


def _label(key: Key) -> str:
    """The method as papers call it, and what distinguishes the curve from others of it."""
    method = describe_method(str(key[0])).label or str(key[0])
    return ", ".join([method, *(str(part) for part in key[1:] if part not in (None, ""))])


class _PublishedOfPath:
    """Published curves over a path, for the panels of a page; matched as in plots."""

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
        records = [(None, bodies[name]) for name in firsts]
        self._rows = {(row["id"], row["metric"]): row for row in to_rows(build_frame(records, self._published.paths))}
        """The first row of each mean, with the settings that distinguish published variants."""

    def match(self, curves: _Curves) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Published curves for the panel itself, and separate figures; these for primary metrics only."""
        ours = []
        for key, scores in curves.items():
            rows = [self._rows.get((score.shared["id"], score.shared["metric"])) for score in scores]
            xs = [score.fields[self._path] for score in scores]
            if all(rows) and all(map(is_number, xs)):
                means = tuple(Mean((row["value"],), (row,), "sd") for row in rows if row)
                ours.append(Curve(Series(str(key[0]), _label(key)), tuple(map(float, xs)), means))
        same_panel, figures = self._published.match(ours)
        is_primary = next(iter(curves.values()))[0].shared["primary"]
        described = [
            {"title": figure.title, "y": figure.y, "note": figure.note, "curves": _as_data(figure.curves)}
            for figure in (figures if is_primary else [])
        ]
        return _as_data(same_panel), described


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
