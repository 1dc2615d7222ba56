"""Pictures of rows and columns taken apart: panels that white lines separate."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_WHITE = 250
_LEAST = 24
"""Least side of a panel, px: what is smaller is text."""
_SLACK = 2
"""Panels of one picture may differ by so many px."""


def split_tiles(picture: Image) -> list[list[Image]] | None:
    """The panels of an RGB picture, row by row; None if it has no two or more equal panels.

    Text above, below and at the left is left out, since it is smaller than a panel or of another size.
    """
    inked: np.ndarray = np.asarray(np.asarray(picture).min(-1) < _WHITE)
    # First the rows without their labels, then the columns of these rows, then the rows of these columns alone.
    columns = _equal_runs(_mostly(inked, axis=0))
    if not columns:
        return None
    rows = _equal_runs(inked[:, columns[0][0] : columns[0][1]].mean(1) > 0.5)
    if len(rows) * len(columns) < 2:
        return None
    return [[picture.crop((left, top, right, bottom)) for left, right in columns] for top, bottom in rows]


def _mostly(inked: np.ndarray, axis: int) -> np.ndarray:
    """Whether a line is inked over a good part of its length: lines through panels, not those through text."""
    share = inked.mean(axis)
    return share > 0.5 * share.max() if share.max() > 0 else share > 1


def _equal_runs(is_inked: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of the runs of the most common length among the long ones."""
    edges = np.flatnonzero(np.diff(np.pad(is_inked.astype(int), 1)))
    runs = [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start >= _LEAST]
    if not runs:
        return []
    lengths = Counter(end - start for start, end in runs)
    length = max(lengths, key=lambda one: (lengths[one], one))
    return [run for run in runs if abs(run[1] - run[0] - length) <= _SLACK]
