"""TIFFs that Pillow reads and does not write: signed and long integers, bands without a declared meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def tiff(path: Path, stored: np.ndarray, **tags: int) -> None:
    """A little-endian TIFF of one strip, uint or int, [H, W] or [H, W, bands]."""
    height, width = stored.shape[:2]
    bands = stored.shape[2] if stored.ndim == 3 else 1
    bits = stored.dtype.itemsize * 8
    signed = 2 if stored.dtype.kind == "i" else 1
    entries = {256: width, 257: height, 259: 1, 262: 2 if bands > 2 else 1, 277: bands, 278: height, 339: signed}
    entries |= {279: stored.nbytes, **{int(tag[1:]): value for tag, value in tags.items()}}
    long_values = b""
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    packed = {258: (3, [bits] * bands)} | {tag: (4 if tag == 279 else 3, [value]) for tag, value in entries.items()}
    sizes = {3: 2, 4: 4}
    body = {}
    for tag, (kind, values) in packed.items():
        data = b"".join(int(value).to_bytes(sizes[kind], "little") for value in values)
        if len(data) > 4:
            body[tag] = (kind, len(values), (start + len(long_values)).to_bytes(4, "little"))
            long_values += data
        else:
            body[tag] = (kind, len(values), data.ljust(4, b"\0"))
    body[273] = (4, 1, (start + len(long_values)).to_bytes(4, "little"))
    fields = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + data
        for tag, (kind, count, data) in sorted(body.items())
    )
    header = b"II*\0" + (8).to_bytes(4, "little") + len(body).to_bytes(2, "little")
    path.write_bytes(header + fields + bytes(4) + long_values + stored.astype(stored.dtype.newbyteorder("<")).tobytes())
