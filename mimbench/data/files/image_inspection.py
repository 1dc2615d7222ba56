"""What decoding an image file once shows: whether it can be read, and which values it holds."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from mimbench.data.files.header_details import has_extra_bands
from mimbench.data.files.image_reading import (
    EXTRA_BANDS,
    IN_EIGHT_BITS,
    PixelPolicy,
    TooManyPixels,
    has_transparency,
    open_image,
    stored_kind,
    stored_values,
)

INSPECTION_VERSION = "3"
"""Raised whenever the same file would be judged otherwise."""
LARGE = 8_000_000
"""Images of more pixels are decoded one at a time, which bounds memory."""
SAMPLE = 1_000_000
"""Percentiles of deeper than 8 bits are taken of about so many pixels."""
TAIL = 0.001

_large_image = threading.Lock()
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Inspection(NamedTuple):
    """Plain data: it is kept as JSON."""

    problem: str | None = None
    """Why the file cannot be read; None: it can."""
    width: int = 0
    height: int = 0
    kind: str = ""
    """See `stored_kind`; "": not decoded."""
    low: float = 0
    high: float = 0
    """The extreme values. Of 16-bit colours only the upper byte is known."""
    dark: float = 0
    bright: float = 0
    """0.1 % of the values lie below the one, 0.1 % above the other."""
    transparent: str = ""
    """"part" or "whole" of the image; "": nothing."""
    extra_bands: bool = False
    pages: int = 1
    """Of a TIFF."""
    refused_at: int = 0
    """The limit of pixels that it was beyond; 0: none."""

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def problem_with(self, policy: PixelPolicy) -> str | None:
        """Why it cannot be read as the policy says."""
        if self.pixels > policy.max_pixels:
            return str(TooManyPixels(policy.max_pixels, (self.width, self.height)))
        if self.problem is None and self.extra_bands and policy.extra_bands == "refuse":
            return EXTRA_BANDS
        if self.problem is None and self.kind:
            try:
                policy.check_values(self.low, self.high, self.kind)
            except ValueError as error:
                return str(error)
        return self.problem

    def holds_at(self, max_pixels: int) -> bool:
        """Whether the verdict holds under this limit too."""
        return self.refused_at == 0 or self.refused_at >= max_pixels


def inspect_image(stream: IO[bytes], max_pixels: int) -> Inspection:
    """Decode a file in full, unless it has more than `max_pixels`."""
    try:
        with open_image(stream, max_pixels) as image:
            width, height = image.size
            with _large_image if width * height > LARGE else nullcontext():
                return _decoded(image, width, height)
    except TooManyPixels as error:
        return Inspection(str(error), refused_at=max_pixels)
    # Pillow's decoders raise nearly anything on a damaged file (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        return Inspection(_reason(error, stream))


def _decoded(image: Image.Image, width: int, height: int) -> Inspection:
    kind, extra = stored_kind(image), has_extra_bands(image)
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    # A JPEG is then decoded at an eighth of its size: the whole stream, a fraction of the time.
    image.draft(image.mode, (1, 1))
    image.load()
    if image.width * image.height > width * height:  # an icon may hold more than its header declares
        raise ValueError("it holds more pixels than it declares")
    transparent = ""
    if kind in IN_EIGHT_BITS:
        counts, transparent = _counts(image)
        if extra:  # Pillow takes a band of no declared meaning for transparency
            transparent = ""
        low, high, dark, bright = _of_counts(counts)
        if kind != "8-bit":
            low, dark, high, bright = 256 * low, 256 * dark, 256 * high + 255, 256 * bright + 255
    else:
        values = stored_values(image, kind).ravel()
        tails = np.quantile(values[:: max(1, values.size // SAMPLE)], (TAIL, 1 - TAIL), method="nearest")
        low, high, dark, bright = map(float, (values.min(), values.max(), *tails))
    return Inspection(None, width, height, kind, low, high, dark, bright, transparent, extra, pages)


def _counts(image: Image.Image) -> tuple[np.ndarray, str]:
    """How often each of 256 values occurs in grey or RGB; and which part of the image is transparent."""
    if has_transparency(image):
        # No copy of what may be a large image.
        counts = np.array((image if image.mode == "RGBA" else image.convert("RGBA")).histogram()).reshape(4, 256)
        alpha, total = counts[3], counts[3].sum()
        return counts[:3].sum(axis=0), "whole" if alpha[0] == total else "part" if alpha[255] < total else ""
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return np.array(image.histogram()).reshape(-1, 256).sum(axis=0), ""


def _of_counts(counts: np.ndarray) -> tuple[float, ...]:
    """Lowest and highest value, and those at the tails."""
    there = np.flatnonzero(counts)
    shares = counts.cumsum() / counts.sum()
    return tuple(map(float, (there[0], there[-1], *np.searchsorted(shares, (TAIL, 1 - TAIL)))))


def _reason(error: Exception, stream: IO[bytes]) -> str:
    if isinstance(error, UnidentifiedImageError):
        stream.seek(0)
        start = stream.read(4)
        if not start:
            return "empty file"
        if start in _POSTSCRIPT:
            return "PostScript, which is not read: save it as PNG"
        if start in _TIFF:
            return (
                "a TIFF of a kind that is not read (its values may be floats of 16 or 64 bits, or its bands no grey, "
                "RGB or CMYK): save it as 8- or 16-bit grey or RGB"
            )
        return "not an image that can be read"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
