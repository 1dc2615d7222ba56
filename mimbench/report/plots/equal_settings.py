"""Which records have the same settings, apart from the setting that a figure varies."""

from __future__ import annotations

from collections.abc import Sequence

from mimbench.report.plots.series import recipe_of
from mimbench.report.plots.source import Source
from mimbench.store.sealing import fingerprint


def settings_without(source: Source, paths: Sequence[str]) -> dict[str, str]:
    """By id of each record: a key, equal for records whose settings differ in nothing but `paths`.

    A record made before an option existed lacks it, while a later one has its default. Two such recipes are the same if
    a pretraining of one has the fingerprint of a pretraining of the other: no default of a later option is in it.
    """
    keys = {}
    for name, body in source.bodies.items():
        recipe = {path: value for path, value in recipe_of(body).items() if path not in paths}
        keys[name] = fingerprint([body["method"]["name"], body["encoder"]["name"], recipe])
    parents = {key: key for key in keys.values()}

    def root(key: str) -> str:
        while parents[key] != key:
            key = parents[key]
        return key

    key_of_pretraining: dict[str, str] = {}
    for name, body in source.bodies.items():
        one, other = root(keys[name]), root(key_of_pretraining.setdefault(body["pretraining"], keys[name]))
        parents[max(one, other)] = min(one, other)
    return {name: root(key) for name, key in keys.items()}
