"""Sizes of image files, which boxes and masks are measured in."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from mimbench.data.files.cache import READERS, folder_entries, is_current, write_derived
from mimbench.data.files.header_details import has_extra_bands
from mimbench.data.files.image_reading import (
    DEFAULT_POLICY,
    EXTRA_BANDS,
    MAX_PIXELS,
    PixelPolicy,
    TooManyPixels,
    open_image,
    read_pixels,
    stored_kind,
)
from mimbench.errors import InputError
from mimbench.files import FileState
from mimbench.text import quoted

Size = tuple[int, int]
"""Width and height, px."""
_ORIENTATION = 0x0112
"""The EXIF tag: 1 is upright; from 5 on, width and height change places."""
_CACHE_VERSION = "4"
"""Raised whenever entries change their form."""


@dataclass(frozen=True)
class ImageSize:
    """What an image file's header says: the size of its stored pixels, and how EXIF turns them."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        return (self.stored[1], self.stored[0]) if self.orientation >= 5 else self.stored

    def __str__(self) -> str:
        width, height = self.stored
        turned = " (EXIF turns it to {} x {})".format(*self.upright) if self.upright != self.stored else ""
        return f"{width} x {height} px{turned}"


class _Entry(NamedTuple):
    """What the cache keeps of a file, as plain data."""

    state: FileState
    examined: int
    """When, ns since the epoch."""
    width: int
    height: int
    orientation: int

    @classmethod
    def from_json(cls, data: list) -> _Entry:
        state, *others = data
        return cls(FileState(*state), *others)

    def size_within(self, max_pixels: int) -> ImageSize | str:
        """The size, or that it has too many pixels."""
        if self.width * self.height > max_pixels:
            return str(TooManyPixels(max_pixels, (self.width, self.height)))
        return ImageSize((self.width, self.height), self.orientation)


@dataclass
class ExifTurns:
    """Names of the images that EXIF data turn, by the pixels that their declared sizes are for."""

    stored: list[str] = field(default_factory=list)
    upright: list[str] = field(default_factory=list)
    either: list[str] = field(default_factory=list)
    """Both have the same size; such images are read as stored."""

    def add(self, name: str, raster: ImageSize, how: str) -> None:
        """how: as `match_size` returns it."""
        if raster.orientation != 1 or how == "upright":
            {"stored": self.stored, "upright": self.upright, "either": self.either}[how].append(name)

    @property
    def as_stored(self) -> list[str]:
        return self.stored + self.either

    def check(self, where: str) -> None:
        """Raises InputError if other images show that those of `either` should be read upright."""
        if self.upright and self.either:
            raise InputError(
                f"{where}: EXIF data turn image {quoted(self.either[0])} and {len(self.either) - 1} more without "
                f"another size, so that it is not known which pixels their annotations are for; those of others, such "
                f"as {quoted(self.upright[0])}, are for the turned ones: save these images upright, without EXIF data"
            )

    def note(self, where: str) -> list[str]:
        if not self.as_stored:
            return []
        return [
            f"{where}: {len(self.as_stored)} images, such as {quoted(self.as_stored[0])}, have EXIF data that turn "
            "them, and annotations for the size of the pixels as stored; they are read as stored"
        ]


def read_image_size(path: Path, max_pixels: int = MAX_PIXELS, *, whole: bool = False) -> ImageSize:
    """The size of an image file.

    whole: decode a PNG that may have its EXIF data after its pixels.

    Raises:
        ValueError: it is a turned TIFF, whose size as stored Pillow does not give, or `read_pixels` would refuse it.
        Exception: whatever Pillow raises on a file that it cannot identify.
    """
    with open_image(path, max_pixels) as image:
        DEFAULT_POLICY.range_for(stored_kind(image))
        if has_extra_bands(image):
            raise ValueError(EXTRA_BANDS)
        has_exif = whole or image.format != "PNG" or "exif" in image.info
        try:
            orientation = image.getexif().get(_ORIENTATION, 1) if has_exif else 1
        except Exception:  # damaged metadata raises nearly anything; the pixels are sound
            orientation = 1
        if image.format == "TIFF" and orientation != 1:
            raise ValueError(f"TIFF with the orientation {orientation}; save it upright")
        return ImageSize(image.size, orientation if orientation in range(1, 9) else 1)


def read_image_sizes(
    names: Sequence[str], folder: Path, cache: Path, max_pixels: int = MAX_PIXELS
) -> dict[str, ImageSize | str]:
    """The size of each file, by name relative to `folder`, or why it cannot be read.

    Sizes of unchanged files come from `cache`.
    """
    with folder_entries(cache, f"rasters-v{_CACHE_VERSION}", folder) as (store, entries):
        known = {name: _Entry.from_json(entry) for name, entry in entries.items()}
        # The clock is read before the states: a change that comes later makes the entry stale.
        examined = time.time_ns()
        states = {name: FileState.if_there(folder / name) for name in dict.fromkeys(names)}
        stale = [
            name
            for name, state in states.items()
            if name not in known or not is_current(known[name].state, known[name].examined, state)
        ]
        failed: dict[str, str] = {}
        if stale:
            with ThreadPoolExecutor(READERS) as pool:
                results = list(pool.map(lambda name: _try_image_size(folder / name, max_pixels), stale))
            for name, size in zip(stale, results, strict=True):
                state = states[name]
                if isinstance(size, ImageSize) and state is not None:
                    known[name] = _Entry(state, examined, *size.stored, size.orientation)
                else:
                    failed[name] = size if isinstance(size, str) else "file is gone"
                    known.pop(name, None)
            write_derived(store, known)
    return {name: failed.get(name) or known[name].size_within(max_pixels) for name in states}


def read_sized(path: Path, channels: int, size: Size) -> np.ndarray:
    """uint8 [H, W, channels] of the size that annotations refer to.

    The stored pixels if they have that size, else the image as EXIF turns it.

    Raises:
        InputError: the image has neither size.
        Exception: whatever Pillow raises on a file that it cannot decode in full.
    """
    # The declared size was checked against the limit in force when the dataset was opened.
    policy = PixelPolicy(max_pixels=max(MAX_PIXELS, size[0] * size[1]))
    pixels = read_pixels(path, channels, policy, stored_size=size)
    height, width = pixels.shape[:2]
    if (width, height) != size:
        raise InputError(
            f"the image {path} is {width} x {height} px, and its annotations are for {size[0]} x {size[1]} px"
        )
    return pixels


def match_size(raster: ImageSize, size: Size, path: Path) -> str | None:
    """How pixels of `size` are got from the file: "stored", "upright", "either"; None: not at all."""
    if raster.stored == size:
        return "either" if raster.orientation != 1 and raster.upright == size else "stored"
    if raster.upright == size:
        return "upright"
    if raster.orientation == 1 and raster.stored == size[::-1]:
        try:
            return "upright" if read_image_size(path, size[0] * size[1], whole=True).upright == size else None
        except Exception:  # Pillow raises nearly anything on a damaged file
            return None
    return None


def find_inside(name: object, folder: Path) -> str:
    """The name, relative to `folder`, of the file in it that an annotation names.

    If no file has exactly this name, slashes are tried for backslashes, and composed and decomposed accents.
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


def _try_image_size(path: Path, max_pixels: int) -> ImageSize | str:
    try:
        return read_image_size(path, max_pixels)
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return (
            "it is not an image that can be read" if isinstance(error, OSError) else str(error) or type(error).__name__
        )
