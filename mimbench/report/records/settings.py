"""The settings in which the records of a method differ, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mimbench.recipe import AT_EPOCH, AT_STEP

_ALWAYS = {"backbone": "encoder", "recipe": "recipe", "set": "set"}
"""Columns that count as settings, with the name that the text has for each."""
_HASH_LENGTH = 6


def describe_settings(tidy: pd.DataFrame, paths: Sequence[str]) -> pd.Series:
    """Per row: the settings in which its method's rows differ, such as "method.mask_ratio=0.6"; "" if there are none.

    Rows with equal method and setting have equal pretrainings except for the seed: where no setting shows a difference,
    such as one within a recipe file, the text ends with the first digits of the pretraining's hash.

    Args:
        tidy: a frame of records.
        paths: columns that hold values of recipe paths, without those of tasks.
    """
    text_of_row: dict[Any, str] = {}
    columns = {path: path for path in paths if path not in (AT_EPOCH, AT_STEP)} | _ALWAYS
    for _, rows in tidy.groupby("method", sort=False):
        parts = {
            name: [_part(name, value) for value in rows[column]]
            for column, name in columns.items()
            if rows[column].nunique(dropna=False) > 1
        }
        parts["at"] = [
            "" if is_final else _at(epoch, step)
            for epoch, step, is_final in zip(rows["at_epoch"], rows["at_step"], rows["final"], strict=True)
        ]
        joined = (", ".join(filter(None, row)) for row in zip(*parts.values(), strict=True))
        text_of_row |= dict(zip(rows.index, joined, strict=True))
    texts = pd.Series(text_of_row, dtype=object).reindex(tidy.index)
    known = tidy["method"].astype(str) + " " + texts
    is_ambiguous = tidy.groupby(known)["pretraining"].transform("nunique") > 1
    hashes = tidy["pretraining"].str[:_HASH_LENGTH]
    with_hash = texts.where(texts == "", texts + ", ") + "pretraining=" + hashes
    return texts.where(~is_ambiguous, with_hash)


def _part(name: str, value: Any) -> str:
    """ "name=value"; "" if the value is missing."""
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return ""
    return f"{name}={value}"


def _at(epoch: Any, step: Any) -> str:
    return f"step {int(step)}" if pd.isna(epoch) else f"epoch {int(epoch)}"
