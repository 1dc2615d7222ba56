"""The baseline of paired differences: a method, or one of its settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mimbench.errors import InputError, nearest
from mimbench.recipe.document import parse_value
from mimbench.report.records.frame import COLUMNS
from mimbench.report.scores.fields import column_of, format_value, list_fields, sort_key
from mimbench.report.scores.score import Score

_OF_THE_METHOD = ("method", "set", "pretraining", "checkpoint", "id")
"""Fields in which a method and its baseline may differ."""
_SAME = ("task", "metric", "protocol", "backbone")
_LISTED = 4
"""Most settings that a message tells."""


@dataclass(frozen=True)
class Baseline:
    """As `--baseline` gives it: "simmim", or "simmim:method.mask_ratio=0.6"; several settings with commas between."""

    text: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values by path of the recipe, or by field of the table."""

    @classmethod
    def parse(cls, text: str) -> Baseline:
        """Raises InputError for settings that are not path=value."""
        method, colon, rest = text.partition(":")
        settings = {}
        for part in re.split(r",(?=[\w. -]+=)", rest) if colon else ():
            path, equals, value = part.partition("=")
            if not (equals and path.strip() and value.strip()):
                raise InputError(f"--baseline {text!r}: {part!r} is not path=value, as in simmim:method.mask_ratio=0.6")
            settings[path.strip()] = parse_value(value.strip())
        return cls(text, method.strip(), settings)

    @property
    def paths(self) -> list[str]:
        """Those of the recipe that its settings name."""
        return [path for path in self.settings if "." in path]

    def check(self, tidy: pd.DataFrame) -> None:
        """Raise InputError where a setting is none of the method's records'."""
        method_rows = tidy[tidy["method"] == self.method]
        for path, value in self.settings.items():
            column = column_of(path)
            where = f"--baseline {self.text}: "
            fields = list_fields(method_rows)
            known = [name for name in fields if "." in name and method_rows[name].notna().any()]
            if column not in known and not (column in COLUMNS and column in fields):
                hint = nearest(path, known) if known else "; none of its settings was varied"
                raise InputError(f"{where}{self.method} has no setting {path!r}{hint}")
            met = method_rows[[_is_equal(each, value) for each in method_rows[column]]]
            if met.empty:
                there = ", ".join(
                    dict.fromkeys(format_value(each) for each in sorted(method_rows[column].dropna(), key=sort_key))
                )
                raise InputError(
                    f"{where}no record of {self.method} has {path}={format_value(value)}"
                    + (f" with {_settings(done)}" if (done := _before(self.settings, path)) else "")
                    + f"; there is {there or 'none'}"
                )
            method_rows = met

    def matches(self, score: Score) -> bool:
        """Whether a score is the baseline's, of the settings that were chosen."""
        return score.shared["method"] == self.method and all(
            _is_equal(score.shared[column_of(path)], value) for path, value in self.settings.items()
        )

    def partner(self, score: Score, everything: Sequence[Score]) -> Score | str:
        """The baseline's score to compare with, or why there is none.

        It has the same task, metric, protocol and encoder. Of several, it is the one that shares the most fields with
        `score`, and of those the one that nothing was varied for.
        """
        same = [
            other
            for other in everything
            if self.matches(other) and all(other.shared[name] == score.shared[name] for name in _SAME)
        ]
        if not same:
            return f"{self.text} was not measured with this encoder under this protocol"

        def count_shared(other: Score) -> int:
            names = [name for name in score.fields if name not in _OF_THE_METHOD]
            return sum(other.fields.get(name) == score.fields[name] for name in names)

        closest = max(map(count_shared, same))
        candidates = (
            same if self._is_other_setting(score) else [other for other in same if count_shared(other) == closest]
        )
        plain = [other for other in candidates if not other.shared["varied"]]
        for chosen in (plain, candidates):
            if len(chosen) == 1:
                return chosen[0]
        if self._is_other_setting(score):
            return score
        advice = f"; choose one: --baseline {choices}" if (choices := self._choices(candidates)) else ""
        return f"{self.text} has {len(candidates)} settings to compare with{advice}"

    def _is_other_setting(self, score: Score) -> bool:
        """Whether the score is of the baseline's method while the baseline names no setting."""
        return not self.settings and score.shared["method"] == self.method

    def describe(self, partners: Sequence[Score], everything: Sequence[Score]) -> str:
        """The baseline and, if its method has several settings, the setting of these partners."""
        method_scores = [score for score in everything if score.shared["method"] == self.method]
        paths = [
            path
            for path in method_scores[0].fields
            if "." in path and len({repr(score.fields[path]) for score in method_scores}) > 1
        ]
        settings = {_settings({path: score.fields[path] for path in paths}) for score in partners}
        if self.settings or not paths or not settings:
            return self.text
        return f"{self.method} ({settings.pop() if len(settings) == 1 else 'its most similar setting'})"

    def _choices(self, candidates: Sequence[Score]) -> str:
        """Baselines to choose from. A candidate without any setting cannot be named and is left out."""
        paths = [
            path for path in candidates[0].fields if len({repr(other.fields.get(path)) for other in candidates}) > 1
        ]
        paths = [path for path in paths if "." in path] or paths
        settings = [
            _settings({**self.settings, **{path: other.fields[path] for path in paths}}) for other in candidates
        ]
        texts = [f"{self.method}:{text}" for text in settings if text]
        return " or ".join(texts[:_LISTED]) + (", ..." if len(texts) > _LISTED else "")


def _before(settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    names = list(settings)
    return {name: settings[name] for name in names[: names.index(path)]}


def _settings(settings: Mapping[str, Any]) -> str:
    return ",".join(f"{path}={format_value(value)}" for path, value in settings.items() if value not in (None, ""))


def _is_equal(recorded: Any, chosen: Any) -> bool:
    chosen = json.dumps(chosen) if isinstance(chosen, list | dict) else chosen  # as a frame holds them
    return bool(recorded == chosen) or format_value(recorded) == format_value(chosen)
