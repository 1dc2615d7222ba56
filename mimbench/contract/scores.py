"""Scores of single samples, which a task returns next to its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

ID, LABEL, ATTRIBUTE = "id", "label", "attribute."
"""Names of columns that every file of scores may have; ATTRIBUTE is the beginning of a name."""
Column = np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class SampleScores:
    """What a task measured of each sample. The record keeps it as the file scores.npz; see `mimbench.load_scores`.

    All columns have one value per sample, [N]: whole numbers, which are stored as int64, or real ones, which are stored
    as float32. Real ones may be infinite, but not NaN.
    """

    ids: Column
    """Whole numbers, each once: the samples' positions in the split."""
    columns: Mapping[str, Column]
    """Measured values by name, such as "prediction" (the class), "loss" (nats) and "confidence" (0 to 1)."""
    labels: Column | None = None
    """The classes of the samples, as whole numbers; None if they have none."""
    attributes: Mapping[str, Column] = field(default_factory=dict)
    """Attributes of the samples, as `ImageSplit.attributes`."""
    split: str = "test"
    """The dataset's split that the samples come from."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleScores):
            return NotImplemented
        one, two = self.arrays(), other.arrays()
        is_equal = self.split == other.split and one.keys() == two.keys()
        return is_equal and all(np.array_equal(one[name], two[name]) for name in one)

    def arrays(self) -> dict[str, np.ndarray]:
        """All columns by name, as stored: "id", "label", "attribute.NAME", then the measured ones.

        Raises:
            ValueError: a column has another form, or two have one name; the message says which.
        """
        arrays = {ID: _as_whole(ID, self.ids)}
        if self.labels is not None:
            arrays[LABEL] = _as_whole(LABEL, self.labels)
        for name, values in self.attributes.items():
            arrays[f"{ATTRIBUTE}{name}"] = _as_whole(f"{ATTRIBUTE}{name}", values)
        for name, values in self.columns.items():
            if not isinstance(name, str) or not name.isidentifier() or name in arrays:
                raise ValueError(f"the name {name!r} is no identifier, or is one of another column")
            arrays[name] = _as_stored(name, values)
        count = len(arrays[ID])
        for name, array in arrays.items():
            if array.shape != (count,):
                raise ValueError(f"{name} is {list(array.shape)}, and there are {count} ids")
        if count == 0 or len(np.unique(arrays[ID])) < count:
            raise ValueError("ids are empty, or one occurs twice")
        return arrays


def _as_whole(name: str, values: Any) -> np.ndarray:
    array = _as_stored(name, values)
    if array.dtype != np.int64:
        raise ValueError(f"{name} has real numbers; use whole ones")
    return array


def _as_stored(name: str, values: Any) -> np.ndarray:
    """A copy as int64 or float32."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        form = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} is {form}; use a tensor or an array of numbers")
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    if np.isnan(array).any():
        raise ValueError(f"{name} has NaN")
    return array.astype(np.float32)
