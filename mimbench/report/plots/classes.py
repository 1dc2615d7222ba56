"""Results by class: scores of each class, confusion matrices, and precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mimbench.errors import InputError
from mimbench.report.plots.lines import Curve, Lines
from mimbench.report.plots.series import (
    Series,
    Titles,
    build_series,
    by_protocol,
    describe_means,
    group_by,
    make_setting_key,
    mean_over_seeds,
)
from mimbench.report.plots.sheet import Plot, Sheet, key
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import INK, SMALL, clean, metric_label, wrap
from mimbench.store.scores import SCORES, read_scores

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_MOST_CLASSES = 40
_MOST_NUMBERED = 12
"""Classes up to which the cells of a confusion matrix have numbers."""
PRECISION = "precision_by_recall"
"""End of the name of a curve with the precision at equally spaced recalls from 0 to 1."""


def classes(source: Source, options: Options) -> Sheet:
    """The score of each class: a row per class, a marker per setting at its mean over seeds."""
    rows = [row for row in source.rows(options) if _by_class(source, row)]
    if not rows:
        raise source.nothing_to_plot(
            "classes", "records of a task that scores each class", "mimbench run --method METHOD --task TASK"
        )
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    plots: list[Plot] = []
    for group in group_by(rows, by_protocol).values():
        by_setting = group_by(group, setting)
        scores: dict[Series, dict[str, float]] = {}
        for setting_key, entry in series.items():
            tables = [_by_class(source, row) for row in by_setting.get(setting_key, [])]
            if tables:
                scores[entry] = {name: fmean(table[name] for table in tables if name in table) for name in tables[0]}
        first = group[0]
        label = metric_label(first["task"], first["metric"], first["unit"])
        plots.append(_class_plot(titles.title(first), label, scores))
    seeds = {row["seed"] for row in rows}
    note = f"Mean over {len(seeds)} seed{'s' * (len(seeds) > 1)}; classes by their mean over all methods."
    return Sheet(plots, [key(entry) for entry in series.values()], note)


def _by_class(source: Source, row: Row) -> dict[str, float]:
    """{class: its value of the row's metric}; {} if the record has none."""
    table: Any = source.bodies[row["id"]].get("details", {}).get("per_class")
    if not isinstance(table, Mapping):
        return {}
    kinds = [kind for kind in table.values() if isinstance(kind, Mapping)]
    if kinds and all(isinstance(entry, Mapping) for kind in kinds for entry in kind.values()):
        table = kinds[0]  # by kind of object, such as boxes and masks, then by class
    values = {name: entry.get(row["metric"]) for name, entry in table.items() if isinstance(entry, Mapping)}
    return {clean(name): float(value) for name, value in values.items() if isinstance(value, int | float)}


def _class_plot(title: str, label: str, scores: Mapping[Series, Mapping[str, float]]) -> Plot:
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    means = {name: fmean(values[name] for values in scores.values() if name in values) for name in names}
    shown = sorted(names, key=lambda name: -means[name])[:_MOST_CLASSES]

    def draw(axes: Axes) -> None:
        for entry, values in scores.items():
            places = [place for place, name in enumerate(shown) if name in values]
            axes.plot(
                [values[shown[place]] for place in places],
                places,
                entry.style.marker,
                color=entry.colour,
                mec="white",
                mew=0.3,
                label=entry.label,
            )
        axes.set_yticks(range(len(shown)), [wrap(name, 20, 1) for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
        axes.set_xlabel(label)

    return Plot(draw, title, 0.62 + 0.14 * len(shown), indent=1.0)


def confusion(source: Source, options: Options) -> Sheet:
    """Confusion matrices from the scores of single samples, all seeds of a setting together."""
    rows = [row for row in source.rows(options) if SCORES in source.bodies[row["id"]]["artifacts"]]
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    plots: list[Plot] = []
    for group in group_by(rows, by_protocol).values():
        by_setting = group_by(group, setting)
        for setting_key, entry in series.items():
            matrix = _count(source, by_setting.get(setting_key, []))
            if matrix is not None:
                plots.append(_matrix_plot(f"{entry.label}: {titles.title(group[0])}", matrix))
    if not plots:
        raise source.nothing_to_plot(
            "confusion",
            "records of a classification task with scores of single samples, which older records lack",
            "mimbench run --method METHOD --task TASK --fresh",
        )
    return Sheet(plots, (), "Percent of each true class; all seeds together.", narrowest=2.4)


def _count(source: Source, rows: Sequence[Row]) -> np.ndarray | None:
    """Samples by true and predicted class, [C, C]; None if no record has both."""
    import numpy as np

    pairs = []
    for row in rows:
        file = source.files[row["id"]]
        try:
            columns = read_scores(file, source.bodies[row["id"]])[1] if file else {}
        except InputError:
            continue  # missing or damaged: `mimbench verify` reports it
        if {"label", "prediction"} <= set(columns):
            pairs.append((columns["label"], columns["prediction"]))
    if not pairs:
        return None
    labels, predictions = (np.concatenate(part).astype(int) for part in zip(*pairs, strict=True))
    size = int(max(labels.max(), predictions.max())) + 1
    matrix = np.zeros((size, size), dtype=int)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def _matrix_plot(title: str, matrix: np.ndarray) -> Plot:
    share = 100 * matrix / matrix.sum(1, keepdims=True).clip(min=1)
    size = len(matrix)

    def draw(axes: Axes) -> None:
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        if size <= _MOST_NUMBERED:
            for row in range(size):
                for column in range(size):
                    if share[row, column] >= 0.5:
                        ink = "white" if share[row, column] > 60 else INK
                        axes.text(
                            column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=4.5, color=ink
                        )
            axes.set_xticks(range(size), list(map(str, range(size))))
            axes.set_yticks(range(size), list(map(str, range(size))))
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.grid(visible=False)
        axes.tick_params(length=0)

    return Plot(draw, title, 2.35)


def precision_recall(source: Source, options: Options) -> Sheet:
    """Precision over recall, mean over classes and seeds."""
    rows = [row for row in source.rows(options) if _precision(source, row)]
    if not rows:
        raise source.nothing_to_plot(
            "precision-recall",
            "records of a detection that hold precision by recall, which older records lack",
            "mimbench run --method METHOD --task TASK --fresh",
        )
    setting, titles = make_setting_key(rows), Titles(source, rows)
    series = build_series(rows, setting, source)
    plots, means = [], []
    for group in group_by(rows, by_protocol).values():
        by_setting = group_by(group, setting)
        curves = []
        for setting_key, entry in series.items():
            here = by_setting.get(setting_key, [])
            if here:
                tables = [_precision(source, row) for row in here]
                points = range(len(tables[0]))
                at = [[{**row, "value": table[i]} for row, table in zip(here, tables, strict=True)] for i in points]
                recalls = tuple(i / (len(tables[0]) - 1) for i in points)
                curves.append(Curve(entry, recalls, tuple(mean_over_seeds(one, options.spread) for one in at)))
        means += [mean for curve in curves for mean in curve.means]
        plots.append(Lines(titles.title(group[0]), "Recall", "Precision at IoU 0.50 (%)", curves).plot())
    return Sheet(plots, [key(entry) for entry in series.values()], f"{describe_means(means)} Mean over classes.")


def _precision(source: Source, row: Row) -> list[float]:
    curves = source.bodies[row["id"]]["curves"]
    return next((curve for name, curve in curves.items() if name.endswith(PRECISION) and len(curve) > 1), [])
