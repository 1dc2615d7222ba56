"""Records grouped for drawing: one series a setting, one panel a task, metric and protocol, one mean over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from mimbench.display import drawing_rank
from mimbench.recipe import AT_EPOCH, is_of_task
from mimbench.recipe.document import values
from mimbench.report.plots.source import Options, Row, Source
from mimbench.report.plots.style import Look, clean, lightened, look
from mimbench.report.records.protocols import differing_paths, label_protocols
from mimbench.report.scores.statistics import LEVEL_TEXT, summarise

T = TypeVar("T")
Panel = tuple[Any, ...]
"""(task, metric, protocol, ...)"""
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
COSMETIC = ("data.root", "pretrain.workers", "pretrain.checkpoint_every", "pretrain.tensorboard")
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
    def look(self) -> Look:
        return look(self.method)

    @property
    def colour(self) -> tuple[float, float, float]:
        """The method's own for its main setting; the others are lighter."""
        return lightened(self.look.colour, 0.62 * self.place / max(1, self.places - 1))

    @property
    def dash(self) -> Dash:
        return DASHES[self.place % len(DASHES)]


@dataclass(frozen=True)
class Mean:
    """The measurements of one place in a figure: a mean over seeds and how sure it is."""

    values: tuple[float, ...]
    rows: tuple[Row, ...]
    spread: Literal["ci", "sd"]

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def mean(self) -> float:
        return summarise(self.values).mean

    @property
    def whisker(self) -> tuple[float, float] | None:
        """What is drawn: `spanned`, as far as the metric's range goes; None for one value."""
        if self.spanned is None:
            return None
        return max(self.spanned[0], self.first["low"]), min(self.spanned[1], self.first["high"])

    @property
    def is_cut(self) -> bool:
        """Whether the metric's range ends before the interval."""
        return self.whisker != self.spanned

    @cached_property
    def spanned(self) -> tuple[float, float] | None:
        """An interval of the mean, or mean +- sd."""
        found = summarise(self.values)
        if found.sd is None:
            return None
        if self.spread == "sd":
            return found.mean - found.sd, found.mean + found.sd
        assert found.interval is not None
        return found.interval.low, found.interval.high

    @property
    def errors(self) -> tuple[float, float]:
        """Below and above the mean, as matplotlib takes them; 0 for one value."""
        return (self.mean - self.whisker[0], self.whisker[1] - self.mean) if self.whisker else (0.0, 0.0)


def mean_of(rows: Sequence[Row], spread: Literal["ci", "sd"]) -> Mean:
    rows = sorted(rows, key=lambda row: row["seed"])
    return Mean(tuple(float(row["value"]) for row in rows), tuple(rows), spread)


def told(means: Iterable[Mean]) -> str:
    """What stands in the figure: over how many seeds, and what the interval is."""
    means = list(means)
    ns = sorted({len(mean.values) for mean in means})
    if ns == [1]:
        return "One seed, no interval."
    text = f"Mean over n = {ns[0] if len(ns) == 1 else f'{ns[0]} to {ns[-1]}'} seeds"
    if means[0].spread == "sd":
        text += ", ±1 seed sd"
    else:
        text += f", {interval_of('the mean')}"
    text += ", cut at the metric's range" if any(mean.is_cut for mean in means) else ""
    return f"{text}; one seed has none." if ns[0] == 1 else f"{text}."


def interval_of(what: str) -> str:
    """The interval as a note names it."""
    return f"{LEVEL_TEXT} interval of {what} (Student's t)"


def by_protocol(row: Row) -> Panel:
    return row["task"], row["metric"], row["protocol"]


def grouped(rows: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def settings_of(rows: Sequence[Row], place: Callable[[Row], Hashable] = by_protocol) -> Callable[[Row], Panel]:
    """What tells settings apart: the pretraining, and more where a seed would else count twice in one place."""
    extra: dict[Panel, tuple[str, ...]] = {}
    for pretraining, of in grouped(rows, lambda row: (row["method"], row["pretraining"])).items():
        for extra[pretraining] in ((), ("checkpoint",), ("id",)):
            seen = {(tuple(row[name] for name in extra[pretraining]), place(row), row["seed"]) for row in of}
            if len(seen) == len(of):
                break

    def setting(row: Row) -> Panel:
        key = (row["method"], row["pretraining"])
        return (*key, *(row[name] for name in extra.get(key, ())))

    return setting


def named(rows: Sequence[Row], key: Callable[[Row], Panel], source: Source, but: str = "") -> dict[Panel, Series]:
    """The series by `key`, in the order to draw them; `but` is a path that does not tell them apart.

    Colour and dash follow from all records of `source`, not from `rows`: a setting has the same in every figure.
    """
    firsts = {found: of[0] for found, of in grouped(rows, key).items()}
    everywhere = _placed(source, key, but)
    several = len({first["backbone"] for first in firsts.values()}) > 1
    series = {}
    for method, keys in sorted(grouped(firsts, lambda found: firsts[found]["method"]).items(), key=_by_method):
        texts = _distinctions([recipe_of(source.bodies[firsts[found]["id"]], but) for found in keys])
        if texts is None or (len(keys) == 1 and everywhere[keys[0]].place and not but):
            texts = [everywhere[found].text for found in keys]
        for text, found in sorted(zip(texts, keys, strict=True), key=lambda pair: natural(pair[0])):
            parts = [clean(method), clean(firsts[found]["backbone"]) if several else "", text]
            at = everywhere[found]
            series[found] = Series(method, ", ".join(filter(None, parts)), at.place, at.places)
    return series


@dataclass(frozen=True)
class _Place:
    """Of a setting among those of its method, in all records."""

    place: int
    places: int
    text: str


def _by_method(item: tuple[str, Any]) -> tuple[int, int, str]:
    return drawing_rank(item[0])


def _placed(source: Source, key: Callable[[Row], Panel], but: str = "") -> dict[Panel, _Place]:
    """Where each `key` stands: what holds the method's main setting comes first, then by records, then by name."""
    main = source.kept(_main_settings) if but else {}
    rows = source.kept(_all_epochs if but == AT_EPOCH else _ends)
    groups = grouped(rows, key)
    found: dict[Panel, _Place] = {}
    for keys in grouped(groups, lambda at: groups[at][0]["method"]).values():
        recipes = [recipe_of(source.bodies[groups[at][0]["id"]], but) for at in keys]
        texts = dict(zip(keys, _distinctions(recipes) or _numbers(len(keys)), strict=True))

        def rank(at: Panel, texts: Mapping[Panel, str] = texts) -> tuple[Any, ...]:
            first = min((main.get((row["method"], row["pretraining"]), math.inf) for row in groups[at]), default=0)
            return first, -len(groups[at]), natural(texts[at])

        found |= {at: _Place(place, len(keys), texts[at]) for place, at in enumerate(sorted(keys, key=rank))}
    return found


def _main_settings(source: Source) -> dict[Panel, int]:
    """{(method, pretraining): its place}."""
    placed = _placed(source, lambda row: (row["method"], row["pretraining"]))
    return {setting: at.place for setting, at in placed.items()}


def _all_epochs(source: Source) -> list[Row]:
    return source.rows(Options(), epochs=True)


def _ends(source: Source) -> list[Row]:
    return source.rows(Options())


def recipe_of(body: Mapping[str, Any], but: str = "") -> dict[str, Any]:
    """All that a record's pretraining was made by, flat, without what shapes nothing and without `but`."""
    tables = {name: table for name, table in body["recipe"].items() if name != "task"}
    flat = dict(values(tables)) | {path: value for path, value in body["varied"].items() if not is_of_task(path)}
    flat |= {"method version": body["method"]["version"], "encoder version": body["encoder"]["version"]}
    # What is absent counts as none: records that were made before an option was there have none of it.
    return {path: value for path, value in flat.items() if path not in (*COSMETIC, but) and value is not None}


def _distinctions(recipes: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """In what each recipe differs from the others, in short; None where that is long or nothing."""
    if len(recipes) == 1:
        return [""]
    paths = differing_paths(recipes)
    found = [
        clean(" ".join(f"{path.rsplit('.', 1)[-1]}={_shown(recipe.get(path))}" for path in paths)) for recipe in recipes
    ]
    return found if len(set(found)) == len(found) and max(map(len, found)) <= _LONGEST else None


def _numbers(count: int) -> list[str]:
    return [f"setting {number}" for number in range(1, count + 1)]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def natural(text: str) -> list[tuple[int, float, str]]:
    """Numbers by their value."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(1, float(part), "") if index % 2 else (0, 0.0, part) for index, part in enumerate(parts)]


class Titles:
    """What each panel is called: its task and dataset, and its protocol where there is something to tell."""

    def __init__(self, source: Source, rows: Sequence[Row]) -> None:
        tidy = source.tidy()
        shown = {row["protocol"] for row in rows}
        self._labels = label_protocols(tidy[tidy["protocol"].isin(shown)])
        self._several = {
            task for task, of in grouped(rows, lambda row: row["task"]).items() if len({r["protocol"] for r in of}) > 1
        }

    def title(self, row: Row) -> str:
        return ", ".join(filter(None, (f"{clean(row['task'])} on {clean(row['dataset'])}", self.protocol(row))))

    def protocol(self, row: Row) -> str:
        if row["task"] not in self._several and not row["protocol_name"]:
            return ""
        return clean(self._labels[row["protocol"]][0])

    def has_several(self, task: str) -> bool:
        return task in self._several
