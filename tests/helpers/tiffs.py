"""TIFFs that Pillow reads and does not write: signed and long integers, bands of no declared meaning, big-endian."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np

_SHORT, _LONG = 3, 4
_FORMATS = {"u": 1, "i": 2, "f": 3}
_STRIP_OFFSETS, _PLANAR = 273, 284


def tiff(
    path: Path,
    stored: np.ndarray,
    *,
    order: Literal["little", "big"] = "little",
    compressed: bool = False,
    planar: bool = False,
    **tags: int,
) -> None:
    """A TIFF of uint, int or float values, [H, W] or [H, W, bands], in one strip or, if planar, one per band.

    tags: t262=0 writes 0 for the tag 262.
    """
    height, width = stored.shape[:2]
    bands = stored.shape[2] if stored.ndim == 3 else 1
    values = stored.astype(stored.dtype.newbyteorder(order))
    strips = [values[..., band].tobytes() for band in range(bands)] if planar else [values.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    entries = {
        256: [width],
        257: [height],
        258: [stored.dtype.itemsize * 8] * bands,
        259: [8 if compressed else 1],
        262: [2 if bands > 2 else 1],
        _STRIP_OFFSETS: [0] * len(strips),
        277: [bands],
        278: [height],
        279: [len(strip) for strip in strips],
        _PLANAR: [2 if planar else 1],
        339: [_FORMATS[stored.dtype.kind]],
        **{int(tag[1:]): [value] for tag, value in tags.items()},
    }
    start = 8 + 2 + 12 * len(entries) + 4  # of what does not fit into the entries
    beyond = sum(_size(tag) * len(one) for tag, one in entries.items() if _size(tag) * len(one) > 4)
    entries[_STRIP_OFFSETS] = [start + beyond + sum(map(len, strips[:index])) for index in range(len(strips))]
    fields = long_values = b""
    for tag, one in sorted(entries.items()):
        data = b"".join(int(value).to_bytes(_size(tag), order) for value in one)
        fields += tag.to_bytes(2, order) + (_LONG if _size(tag) == 4 else _SHORT).to_bytes(2, order)
        fields += len(one).to_bytes(4, order)
        if len(data) > 4:
            fields += (start + len(long_values)).to_bytes(4, order)
            long_values += data
        else:
            fields += data.ljust(4, b"\0")
    header = (b"II*\0" if order == "little" else b"MM\0*") + (8).to_bytes(4, order) + len(entries).to_bytes(2, order)
    path.write_bytes(header + fields + bytes(4) + long_values + b"".join(strips))


def _size(tag: int) -> int:
    return 4 if tag in (_STRIP_OFFSETS, 279) else 2
