"""Protocols under readable names: what each is called, and in what it differs from the others of its task."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from mimbench.recipe.document import values

_SHORT = 32
"""Longest difference, in characters, that stands for a protocol without a name."""


def protocol_labels(tidy: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """{fingerprint: (name, footnote)} of the protocols in a frame; names differ within a task.

    A protocol without a name is called by its difference from the others where that is short, else by a number.
    """
    labels = {}
    told = tidy[["task", "protocol", "protocol_name", "protocol_json"]].drop_duplicates("protocol")
    for task, group in told.groupby("task"):
        differences = _differences([dict(values(json.loads(text))) for text in group["protocol_json"]])
        found = list(zip(group["protocol"], group["protocol_name"], differences, strict=True))
        found.sort(key=lambda entry: (entry[1], entry[2], entry[0]))
        names = [name for _, name, _ in found]
        for number, (key, name, difference) in enumerate(found, start=1):
            told_by = difference if 0 < len(difference) <= _SHORT and differences.count(difference) == 1 else ""
            label = name if name and names.count(name) == 1 else told_by or f"{name or 'protocol'} {number}"
            labels[key] = label, _note(str(task), label, name, difference if len(found) > 1 else "")
    return labels


def _note(task: str, label: str, name: str, difference: str) -> str:
    if not difference:
        return f"{task} protocol {name}" if name else ""
    if difference != label:
        return f"{task} protocol {label}: {difference}"
    return f"{task} protocol {label}: {name}" if name else ""


def _differences(protocols: list[dict[str, Any]]) -> list[str]:
    """In what each protocol differs from the others: "pooling=token"."""
    paths = list(dict.fromkeys(path for protocol in protocols for path in protocol))
    differing = [path for path in paths if len({repr(protocol.get(path)) for protocol in protocols}) > 1]
    shown = [path for path in differing if not path.endswith(".content")]
    told = [" ".join(f"{path}={protocol.get(path)}" for path in shown) for protocol in protocols]
    if len(set(told)) == len(told) or shown == differing:
        return told
    contents = [path for path in differing if path not in shown]
    return [
        " ".join([text, *(f"{path}={str(protocol.get(path))[:6]}" for path in contents)]).strip()
        for text, protocol in zip(told, protocols, strict=True)
    ]
