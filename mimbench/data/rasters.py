"""Sizes of image files, which boxes and masks are measured in."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
from filelock import FileLock

from mimbench.data.cache import writable
from mimbench.data.headers import has_extra_bands
from mimbench.data.images import (
    ANY_VALUES,
    DEFAULT_POLICY,
    EXTRA_BANDS,
    IN_EIGHT_BITS,
    open_image,
    read_pixels,
    stored_kind,
)
from mimbench.data.listing import ImageFile, examine, printable
from mimbench.data.values import settle
from mimbench.errors import InputError
from mimbench.files import write_atomic

Size = tuple[int, int]
"""Width and height, px."""
_ORIENTATION = 0x0112
"""The EXIF tag: 1 is upright; from 5 on, width and height change places."""
_CACHE_VERSION = "2"


@dataclass(frozen=True)
class Raster:
    """What an image file's header says: the size of its stored pixels, and how EXIF turns them."""

    stored: Size
    orientation: int = 1
    is_deep: bool = False
    """Its values may lie beyond 0 to 255."""

    @property
    def upright(self) -> Size:
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored

    def __str__(self) -> str:
        width, height = self.stored
        turned = " (EXIF turns it to {} x {})".format(*self.upright) if self.upright != self.stored else ""
        return f"{width} x {height} px{turned}"


def read_header(path: Path, *, whole: bool = False) -> Raster:
    """The raster of an image file.

    whole: decode a PNG that may have its EXIF data after its pixels.

    Raises:
        ValueError: it is a turned TIFF, whose size as stored Pillow does not give, or `read_pixels` would refuse it.
        Exception: whatever Pillow raises on a file that it cannot identify.
    """
    with open_image(path) as image:
        kind = stored_kind(image)
        DEFAULT_POLICY.range_of(kind)
        if has_extra_bands(image):
            raise ValueError(EXTRA_BANDS)
        has_exif = whole or image.format != "PNG" or "exif" in image.info
        try:
            orientation = image.getexif().get(_ORIENTATION, 1) if has_exif else 1
        except Exception:  # damaged metadata raises nearly anything; the pixels are sound
            orientation = 1
        if image.format == "TIFF" and orientation != 1:
            raise ValueError(f"TIFF with the orientation {orientation}; save it upright")
        return Raster(image.size, orientation if orientation in range(1, 9) else 1, kind not in IN_EIGHT_BITS)


def read_headers(names: Sequence[str], folder: Path, cache: Path) -> dict[str, Raster | str]:
    """The raster of each file, by name relative to `folder`, or why it cannot be read.

    Headers of unchanged files come from `cache`.
    """
    identity = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    store = writable(cache) / f"rasters-v{_CACHE_VERSION}-{identity}.json"
    with FileLock(f"{store}.lock"):
        known = _load(store)
        states = {name: _state(folder / name) for name in dict.fromkeys(names)}
        stale = [name for name, state in states.items() if not _is_current(known.get(name), state)]
        failed: dict[str, str] = {}
        if stale:
            with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
                headers = list(pool.map(lambda name: _try_header(folder / name), stale))
            for name, header in zip(stale, headers, strict=True):
                if isinstance(header, str):
                    failed[name] = header
                    known.pop(name, None)
                else:
                    known[name] = [*states[name], *header.stored, header.orientation, header.is_deep]
            write_atomic(store, json.dumps(known).encode())
    return {name: failed[name] if name in failed else _as_raster(known[name]) for name in states}


def note_values(headers: Mapping[str, Raster | str], folder: Path, cache: Path) -> tuple[str, ...]:
    """Notes about images of more than 8 bits that use a small part of the range that they are shown in.

    Raises:
        InputError: one of them cannot be decoded, or has values beyond that range.
    """
    deep = [name for name, raster in headers.items() if isinstance(raster, Raster) and raster.is_deep]
    if not deep:
        return ()
    health = examine([ImageFile(name, 0, 0) for name in deep], folder, cache, decode=True, policy=ANY_VALUES)
    for name, one in health.items():
        if one.problem:
            raise InputError(f"cannot read the image {printable(folder / name)}: {one.problem}")
    images = {name: one.inspection for name, one in health.items()}
    return settle(DEFAULT_POLICY, {"": images}, printable(folder), option=None).notes


def read_sized(path: Path, channels: int, size: Size) -> np.ndarray:
    """uint8 [H, W, channels] of the size that annotations refer to.

    The stored pixels where they have that size, else the image as EXIF turns it.

    Raises:
        InputError: the image has neither size.
        Exception: whatever Pillow raises on a file that it cannot decode in full.
    """
    pixels = read_pixels(path, channels, stored_size=size)
    height, width = pixels.shape[:2]
    if (width, height) != size:
        raise InputError(
            f"the image {path} is {width} x {height} px, and its annotations are for {size[0]} x {size[1]} px"
        )
    return pixels


def fit(raster: Raster, size: Size, path: Path) -> str | None:
    """How pixels of `size` are got from the file: "stored", "upright"; None: not at all."""
    if raster.stored == size:
        return "stored"
    if raster.upright == size:
        return "upright"
    if raster.orientation == 1 and raster.stored == size[::-1]:
        try:
            return "upright" if read_header(path, whole=True).upright == size else None
        except Exception:  # Pillow raises nearly anything on a damaged file
            return None
    return None


def find_inside(name: object, folder: Path) -> str:
    """The name, relative to `folder`, of the file in it that an annotation names.

    Backslashes stand for slashes, and accents may be composed or not, where the name as it stands is no file.
    A link inside the folder may lead outside of it: whoever made the folder chose that.

    Raises:
        ValueError: it is no text, leaves the folder, or is not there.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("is no file name")
    slashed = name.replace("\\", "/")
    if os.path.isabs(slashed) or PureWindowsPath(name).drive or ".." in slashed.split("/"):
        raise ValueError("is absolute or holds '..'; names must be relative to their folder and stay in it")
    for candidate in (name, slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed)):
        if os.path.isfile(folder / candidate):
            return candidate
    raise ValueError("is not there")


def _try_header(path: Path) -> Raster | str:
    try:
        return read_header(path)
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return (
            "it is not an image that can be read" if isinstance(error, OSError) else str(error) or type(error).__name__
        )


def _state(path: Path) -> list[int]:
    """What changes with the file's content; the change time also does where a tool restores the date."""
    try:
        state = path.stat()
    except OSError:
        return [0, 0, 0, 0]
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _as_raster(entry: list) -> Raster:
    *_, width, height, orientation, is_deep = entry
    return Raster((width, height), orientation, is_deep)


def _is_current(entry: list | None, state: list[int]) -> bool:
    return entry is not None and len(entry) == 8 and entry[:4] == state


def _load(store: Path) -> dict[str, list]:
    """Known headers; none if the store is absent or damaged, because it can be made again."""
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(entry, list) for entry in known.values()) else {}
