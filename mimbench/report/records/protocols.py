"""Readable names for protocols, and the options in which each differs from the others of its task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mimbench.recipe.document import values

_SHORT = 32
"""Longest difference, in characters, that becomes part of a protocol's name."""
_CONTENT = 6
"""Characters of a content's fingerprint that are shown."""
_DATA, _ROOT = "task.data.", "task.data.root"
"""Columns of the options of a task's dataset; its folder is another one on each machine."""


Labels = Mapping[str, tuple[str, str]]
"""Fingerprint of a protocol -> (name, footnote), see `label_protocols`."""


def label_protocols(tidy: pd.DataFrame) -> Labels:
    """Names and footnotes of the protocols in a frame; names differ within a task.

    Protocols with the same name, or without one, are named by their difference if it is short, else by a number.
    """
    labels = {}
    data = [name for name in tidy.columns if name.startswith(_DATA) and name != _ROOT]
    rows = tidy[["task", "protocol", "protocol_name", "protocol_json", *data]].drop_duplicates("protocol")
    for task, group in rows.groupby("task"):
        options = [
            dict(values(json.loads(text))) | _data_options(chosen)
            for text, (_, chosen) in zip(group["protocol_json"], group[data].iterrows(), strict=True)
        ]
        entries = list(zip(group["protocol"], group["protocol_name"], _differences(options), options, strict=True))
        entries.sort(key=lambda entry: (entry[1], entry[2], entry[0]))
        for number, (key, name, difference, protocol) in enumerate(entries, start=1):
            namesakes = [other for _, called, _, other in entries if called == name]
            short = _short_difference(protocol, namesakes if len(namesakes) > 1 else options)
            label = name
            if not name or len(namesakes) > 1:
                label = ", ".join(filter(None, (name, short))) if short else f"{name or 'protocol'} {number}"
            note = _note(str(task), label, name, difference if len(entries) > 1 else "")
            labels[key] = label, "; ".join(filter(None, (note, _validation_note(str(task), protocol))))
    return labels


def _data_options(row: pd.Series) -> dict[str, Any]:
    """The options of the task's dataset by which its content came about, since they say more than a fingerprint."""
    return {str(name).removeprefix("task."): value for name, value in row.items() if not pd.isna(value)}


def _note(task: str, label: str, name: str, difference: str) -> str:
    if label in (difference, name and f"{name}, {difference}") or not difference:  # the label says it already
        return f"{task} protocol {label}" if name else ""
    return f"{task} protocol {label}: {difference}"


def _validation_note(task: str, protocol: Mapping[str, Any]) -> str:
    share = protocol.get("dataset.validation_share")
    return f"{task} scored on {100 * share:g} % of the training split, held out, not on the test split" if share else ""


def _short_difference(protocol: dict[str, Any], protocols: Sequence[dict[str, Any]]) -> str:
    """The options in which a protocol differs; if they are long, the first with a different value in each protocol."""
    paths = differing_paths(protocols)
    for chosen in (_needed(paths, protocols), *([path] for path in sorted(paths, key=_is_content))):
        text = _shown(protocol, chosen)
        if 0 < len(text) <= _SHORT and len({_shown(other, chosen) for other in protocols}) == len(protocols):
            return text
    return ""


def _differences(protocols: Sequence[dict[str, Any]]) -> list[str]:
    """In what each protocol differs from the others: "pooling=token"."""
    paths = _needed(differing_paths(protocols), protocols)
    return [_shown(protocol, paths) for protocol in protocols]


def differing_paths(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paths at which not all of these have the same value."""
    paths = list(dict.fromkeys(path for one in options for path in one))
    return [path for path in paths if len({repr(one.get(path)) for one in options}) > 1]


def _needed(paths: Sequence[str], protocols: Sequence[dict[str, Any]]) -> list[str]:
    """Paths without fingerprints of contents if the rest distinguishes the protocols; else these come last."""
    rest = [path for path in paths if not _is_content(path)]
    if len({_shown(protocol, rest) for protocol in protocols}) == len(protocols):
        return rest
    return [*rest, *filter(_is_content, paths)]


def _shown(protocol: dict[str, Any], paths: Sequence[str]) -> str:
    return " ".join(f"{path}={str(protocol.get(path))[: _CONTENT if _is_content(path) else None]}" for path in paths)


def _is_content(path: str) -> bool:
    return path.endswith(".content")
