"""Which boxes and masks are sound, and which of them no detector learns from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from mimbench.data.files.image_sizes import Size
from mimbench.text import quoted

_LEAST_POLYGON = 6
"""Numbers of three points."""


def number(value: Any) -> float | None:
    """A finite number as a float; None for everything else, booleans and numbers beyond floats included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def box_problem(box: Any, size: Size) -> str | None:
    """Why this is no box (x, y, width, height, px) of an image; None if it is one."""
    values = [number(value) for value in box] if isinstance(box, list | tuple) else []
    if len(values) != 4 or any(value is None for value in values):
        return f"has the bbox {quoted(box)}; it should be x, y, width and height, px"
    x, y, width, height = (value or 0.0 for value in values)
    if width < 0 or height < 0:
        return f"has the bbox {quoted(box)}, whose size is negative; it should be x, y, width and height, px"
    if x < -size[0] or y < -size[1] or x + width > 2 * size[0] or y + height > 2 * size[1]:
        return f"has the bbox {quoted(box)}, far outside of its image of {size[0]} x {size[1]} px"
    return None


def are_fractions(boxes: Iterable[Sequence[float]]) -> bool:
    """Whether all boxes lie between 0 and 1, as fractions of the image do and lengths in px do not."""
    has_size = False
    for x, y, width, height in boxes:
        if x < 0 or y < 0 or x + width > 1.01 or y + height > 1.01:
            return False
        has_size = has_size or width > 0 or height > 0
    return has_size


FRACTIONS = "all boxes lie between 0 and 1, like fractions of the image; they must be in px"


class BoxCount:
    """Counts the boxes of a split that a detector does not learn from, and those beyond their image.

    Which boxes those are follows mmdet's CocoDataset.parse_data_info. Boxes that reach over the edge are kept as
    they are, by mmdet and by pycocotools.
    """

    def __init__(self) -> None:
        self.total = 0
        self.unused: Counter[str] = Counter()
        self.over_edge = 0
        self.corner_like = 0

    def add(self, box: Sequence[float], area: float, size: Size, *, is_crowd: bool) -> None:
        self.total += 1
        x, y, width, height = box
        self.corner_like += x < width <= size[0] and y < height <= size[1]
        if min(x + width, size[0]) <= max(x, 0) or min(y + height, size[1]) <= max(y, 0):
            empty = width == 0 or height == 0
            self.unused["a side below 1 px" if empty else "a box outside of the image"] += 1
        elif area <= 0:
            self.unused["an area of 0"] += 1
        elif width < 1 or height < 1:
            self.unused["a side below 1 px"] += 1
        elif is_crowd:
            self.unused["a crowd mark"] += 1
        elif x < -1 or y < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
            self.over_edge += 1

    @property
    def _are_corners(self) -> bool:
        return self.corner_like == self.total >= 10 and self.over_edge > self.total / 4

    @property
    def reasons(self) -> str:
        return ", ".join(f"{count} with {reason}" for reason, count in self.unused.most_common())

    def problem(self, annotations: str) -> str | None:
        """Why no detector can learn from the split; None if it can."""
        if not self.total:
            return f"{annotations}: no object in any scene"
        if self._are_corners:
            return (
                f"{annotations}: its boxes seem to be x1, y1, x2, y2: so read, all of its {self.total} lie inside of "
                f"their images; as x, y, width, height, {self.over_edge} reach beyond them"
            )
        if self.total > sum(self.unused.values()):
            return None
        return f"{annotations}: none of its {self.total} objects can be trained on: {self.reasons}"

    def notes(self, annotations: str) -> list[str]:
        """Lines for the terminal: crowds are left out by intent, so they need no line."""
        lines = []
        dropped = Counter({reason: count for reason, count in self.unused.items() if reason != "a crowd mark"})
        if dropped:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in dropped.most_common())
            lines.append(
                f"{annotations}: {sum(dropped.values())} of {self.total} objects are not trained on, as in mmdet: "
                f"{reasons}"
            )
        if self.over_edge:
            lines.append(
                f"{annotations}: {self.over_edge} of {self.total} boxes reach beyond their image; they are kept as "
                "they are, as in mmdet and pycocotools (bbox is x, y, width, height, px)"
            )
        return lines


def checked_mask(mask: Any, size: Size) -> tuple[Any, str | None]:
    """A COCO segmentation as it can be used, and why it is no mask (then it is None).

    Raises:
        ValueError: it is damaged, or of another image size.
    """
    if not mask:
        return None, "it is absent or empty"
    if isinstance(mask, Mapping):
        _check_rle(mask, size)
        return mask, None
    if not isinstance(mask, list):
        raise ValueError(f"has the segmentation {quoted(mask)}; it should be a list of polygons, or an RLE")
    for polygon in mask:
        _check_polygon(polygon, size)
    drawn = [polygon for polygon in mask if len(polygon) >= _LEAST_POLYGON]
    if not drawn:
        return None, "its polygons have fewer than 3 points"
    return (mask if len(drawn) == len(mask) else drawn), None


def mask_area(mask: Any, size: Size) -> float:
    """Area of a mask that `checked_mask` returned, px."""
    encoded = rle.frPyObjects(mask, size[1], size[0]) if _needs_encoding(mask) else mask
    return float(rle.area(rle.merge(encoded) if isinstance(encoded, list) else encoded))


def _needs_encoding(mask: Any) -> bool:
    return isinstance(mask, list) or isinstance(mask["counts"], list)


def _check_polygon(polygon: Any, size: Size) -> None:
    if not isinstance(polygon, list):
        raise ValueError(f"has the segmentation part {quoted(polygon)}; it should be a polygon: [x1, y1, x2, y2, ...]")
    try:
        total = float(sum(polygon))
        low, high = (min(polygon), max(polygon)) if polygon else (0, 0)
    except (TypeError, OverflowError):
        total = low = high = math.nan
    if not math.isfinite(total):
        raise ValueError(f"has the polygon {quoted(polygon)}; it should hold finite numbers")
    if len(polygon) % 2:
        raise ValueError(f"has a polygon of {len(polygon)} numbers; x and y must come in pairs")
    side = max(size)
    if low < -side or high > 2 * side:
        raise ValueError(f"has a polygon far outside of its image of {size[0]} x {size[1]} px")


def _check_rle(mask: Mapping[str, Any], size: Size) -> None:
    declared = mask.get("size")
    if not isinstance(declared, list) or declared != [size[1], size[0]]:
        raise ValueError(
            f"has an RLE mask of the size {quoted(declared)}; it should be [{size[1]}, {size[0]}], the height and "
            "width of its image"
        )
    counts = mask.get("counts")
    try:
        runs = _runs(counts) if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
        is_whole = runs.ndim == 1 and bool((runs >= 0).all()) and int(runs.sum()) == size[0] * size[1]
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"has an RLE mask whose counts do not cover its {size[0]} x {size[1]} px")


def _runs(counts: str) -> np.ndarray:
    """Run lengths from COCO's compressed text.

    Each character holds 5 bits, lowest first, and a sixth that says whether the number goes on; the last one's
    highest bit is the sign. From the fourth number on, each is the difference to the number two places before it.
    """
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("no compressed counts")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    places = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 6:
        raise ValueError("a number beyond 32 bits")
    values = np.add.reduceat((codes & 31) << (5 * places), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
