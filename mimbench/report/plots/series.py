"""Records grouped for drawing: a series per setting, a panel per task, metric and protocol, a mean per place."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from mimbench.display import drawing_rank, paper_name
from mimbench.recipe import AT, is_of_task
from mimbench.recipe.document import values
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import MethodStyle, clean, lightened, method_label, method_style, task_label
from mimbench.report.records.protocols import differing_paths, label_protocols
from mimbench.report.scores.statistics import LEVEL_TEXT, Summary, summarise
from mimbench.text import natural_key

T = TypeVar("T")
Panel = tuple[Any, ...]
"""(task, metric, protocol, ...)"""
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
COSMETIC = (
    "data.root",
    "pretrain.workers",
    "pretrain.checkpoint_every",
    "pretrain.checkpoint_minutes",
    "pretrain.tensorboard",
    "pretrain.track",
    "pretrain.monitor",
    "pretrain.monitor_every",
    "pretrain.monitor_steps",
    "pretrain.monitor_images",
)
"""Settings that shape no result."""
_LONGEST = 44
"""Characters of settings that a legend shows."""


@dataclass(frozen=True)
class Series:
    """One setting of one method: a line, or one bar in each group."""

    method: str
    label: str
    place: int = 0
    """Among the settings of its method in all records; 0 is the one with most of them."""
    places: int = 1

    @property
    def style(self) -> MethodStyle:
        return method_style(self.method)

    @property
    def colour(self) -> tuple[float, float, float]:
        """The method's colour for its main setting, lighter ones for the others."""
        return lightened(self.style.colour, 0.62 * self.place / max(1, self.places - 1))

    @property
    def dash(self) -> Dash:
        return DASHES[self.place % len(DASHES)]


def short_names(entries: Sequence[Series]) -> list[str]:
    """The method of each series; its whole label if several are of one method."""
    methods = [entry.method for entry in entries]
    return [method_label(each.method) if methods.count(each.method) == 1 else each.label for each in entries]


@dataclass(frozen=True)
class Mean:
    """The measurements at one place of a figure: a mean over seeds with its interval."""

    values: tuple[float, ...]
    rows: tuple[Row, ...]
    spread: Literal["ci", "sd"]

    @property
    def first(self) -> Row:
        return self.rows[0]

    @cached_property
    def summary(self) -> Summary:
        return summarise(self.values)

    @property
    def mean(self) -> float:
        return self.summary.mean

    @property
    def whisker(self) -> tuple[float, float] | None:
        """The interval within the metric's range, which is what is drawn; None for one value."""
        if self.interval is None:
            return None
        return max(self.interval[0], self.first["low"]), min(self.interval[1], self.first["high"])

    @property
    def is_cut(self) -> bool:
        """Whether the metric's range ends before the interval."""
        return self.whisker != self.interval

    @property
    def interval(self) -> tuple[float, float] | None:
        return interval_of(self.summary, self.spread)

    @property
    def errors(self) -> tuple[float, float]:
        """Below and above the mean, as matplotlib takes them; 0 for one value."""
        return (self.mean - self.whisker[0], self.whisker[1] - self.mean) if self.whisker else (0.0, 0.0)


def interval_of(summary: Summary, spread: Literal["ci", "sd"]) -> tuple[float, float] | None:
    """The t interval of a mean, or mean ± std over seeds; None for one value."""
    if summary.sd is None or summary.interval is None:
        return None
    if spread == "sd":
        return summary.mean - summary.sd, summary.mean + summary.sd
    return summary.interval.low, summary.interval.high


def mean_over_seeds(rows: Sequence[Row], spread: Literal["ci", "sd"]) -> Mean:
    rows = sorted(rows, key=lambda row: row["seed"])
    return Mean(tuple(float(row["value"]) for row in rows), tuple(rows), spread)


def describe_means(means: Iterable[Mean]) -> str:
    """The note of a figure: the number of seeds, and what the intervals are."""
    means = list(means)
    counts = sorted({len(mean.values) for mean in means})
    if counts == [1]:
        return "One seed, no interval."
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spread = "±1 std over seeds" if means[0].spread == "sd" else name_interval("the mean")
    cut = ", cut at the metric's range" if any(mean.is_cut for mean in means) else ""
    text = f"Mean over n = {seeds} seeds, {spread}{cut}"
    return f"{text}; none for a single seed." if counts[0] == 1 else f"{text}."


def name_interval(quantity: str) -> str:
    """The interval of a quantity, as notes name it."""
    return f"{LEVEL_TEXT} interval of {quantity} (Student's t)"


def by_protocol(row: Row) -> Panel:
    return row["task"], row["metric"], row["protocol"]


def group_by(rows: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def make_setting_key(rows: Sequence[Row], place_of: Callable[[Row], Hashable] = by_protocol) -> Callable[[Row], Panel]:
    """A function from a row to the key of its setting.

    Args:
        place_of: where in the figure a row belongs. A setting has each seed at most once per place.
    """
    # A setting is a pretraining. If that would put one seed twice in a place, as when a pretraining was made twice, its
    # checkpoints count as separate settings; if that is not enough, so are its records.
    extra_fields: dict[Panel, tuple[str, ...]] = {}
    for pretraining, group in group_by(rows, _pretraining_key).items():
        for fields in ((), ("checkpoint",), ("id",)):
            distinct = {(tuple(row[name] for name in fields), place_of(row), row["seed"]) for row in group}
            extra_fields[pretraining] = fields
            if len(distinct) == len(group):
                break

    def setting_key(row: Row) -> Panel:
        pretraining = _pretraining_key(row)
        return (*pretraining, *(row[name] for name in extra_fields.get(pretraining, ())))

    return setting_key


def _pretraining_key(row: Row) -> Panel:
    return row["method"], row["pretraining"]


def build_series(
    rows: Sequence[Row], key: Callable[[Row], Panel], source: Source, varied: str = ""
) -> dict[Panel, Series]:
    """{key: its series}, in the order to draw them.

    Colour and dash follow from all records of `source`, not from `rows`: a setting has the same in every figure.

    Args:
        key: of the series that a row belongs to.
        varied: a path that varies within a series, and so is no part of its label.
    """
    firsts = {series_key: group[0] for series_key, group in group_by(rows, key).items()}
    places = _place_settings(source, key, varied)
    has_several_encoders = len({first["backbone"] for first in firsts.values()}) > 1
    by_method = group_by(firsts, lambda series_key: firsts[series_key]["method"])
    series = {}
    for method, keys in sorted(by_method.items(), key=lambda item: drawing_rank(item[0])):
        labels = _distinctions([recipe_of(source.bodies[firsts[series_key]["id"]], varied) for series_key in keys])
        # A single setting needs no label, unless it is not the main one of its method.
        is_single_minor = len(keys) == 1 and places[keys[0]].place > 0 and not varied
        if labels is None or is_single_minor:
            labels = [places[series_key].text for series_key in keys]
        for label, series_key in sorted(zip(labels, keys, strict=True), key=lambda pair: natural_key(pair[0])):
            encoder = clean(firsts[series_key]["backbone"]) if has_several_encoders else ""
            name = ", ".join(filter(None, (method_label(method), encoder, label)))
            series[series_key] = Series(method, name, places[series_key].place, places[series_key].places)
    return series


@dataclass(frozen=True)
class _Place:
    """The rank of a setting among those of its method, in all records."""

    place: int
    places: int
    text: str


def _place_settings(source: Source, key: Callable[[Row], Panel], varied: str = "") -> dict[Panel, _Place]:
    """The place of each key among those of its method.

    First comes what holds the main setting of the method, then what has more records, then order by name.
    """
    main_places = source.cached(_main_settings) if varied else {}
    rows = source.cached(_all_epochs if varied in AT else _ends)
    groups = group_by(rows, key)
    places: dict[Panel, _Place] = {}
    for keys in group_by(groups, lambda series_key: groups[series_key][0]["method"]).values():
        recipes = [recipe_of(source.bodies[groups[series_key][0]["id"]], varied) for series_key in keys]
        texts = dict(zip(keys, _distinctions(recipes) or _numbers(len(keys)), strict=True))
        ranks = {}
        for series_key in keys:
            group = groups[series_key]
            main_place = min(main_places.get(_pretraining_key(row), math.inf) for row in group)
            ranks[series_key] = (main_place, -len(group), natural_key(texts[series_key]))
        for place, series_key in enumerate(sorted(keys, key=ranks.__getitem__)):
            places[series_key] = _Place(place, len(keys), texts[series_key])
    return places


def _main_settings(source: Source) -> dict[Panel, int]:
    """{(method, pretraining): its place}."""
    return {setting: place.place for setting, place in _place_settings(source, _pretraining_key).items()}


def _all_epochs(source: Source) -> list[Row]:
    return source.rows(Options(), epochs=True)


def _ends(source: Source) -> list[Row]:
    return source.rows(Options())


def recipe_of(body: Mapping[str, Any], varied: str = "") -> dict[str, Any]:
    """The recipe of a record's pretraining, flat, without settings that shape no result and without `varied`."""
    tables = {name: table for name, table in body["recipe"].items() if name != "task"}
    flat = dict(values(tables)) | {path: value for path, value in body["varied"].items() if not is_of_task(path)}
    flat |= {"method version": body["method"]["version"], "encoder version": body["encoder"]["version"]}
    # An absent value is the same as None: records made before an option existed lack it.
    return {path: value for path, value in flat.items() if path not in (*COSMETIC, varied) and value is not None}


def _distinctions(recipes: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """For each recipe, the values in which they differ, as a short text; None if that is too long or not unique."""
    if len(recipes) == 1:
        return [""]
    paths = differing_paths(recipes)
    texts = []
    for recipe in recipes:
        # The last part of a path is enough: "mask_ratio=0.6".
        parts = [f"{path.rsplit('.', 1)[-1]}={_format(recipe.get(path))}" for path in paths]
        texts.append(clean(" ".join(parts)))
    is_unique = len(set(texts)) == len(texts)
    return texts if is_unique and max(map(len, texts)) <= _LONGEST else None


def _numbers(count: int) -> list[str]:
    return [f"setting {number}" for number in range(1, count + 1)]


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class Titles:
    """Titles of panels: task and dataset, and the protocol if it is named or the task has several."""

    def __init__(self, source: Source, rows: Sequence[Row]) -> None:
        tidy = source.tidy()
        shown = {row["protocol"] for row in rows}
        self._labels = label_protocols(tidy[tidy["protocol"].isin(shown)])
        protocols: dict[str, set[str]] = {}
        for row in rows:
            protocols.setdefault(row["task"], set()).add(row["protocol"])
        self._several = {task for task, its_protocols in protocols.items() if len(its_protocols) > 1}

    def title(self, row: Row) -> str:
        return ", ".join(
            filter(None, (f"{task_label(row['task'])} on {clean(paper_name(row['dataset']))}", self.protocol(row)))
        )

    def protocol(self, row: Row) -> str:
        if row["task"] not in self._several and not row["protocol_name"]:
            return ""
        return clean(self._labels[row["protocol"]][0])

    def has_several(self, task: str) -> bool:
        return task in self._several
