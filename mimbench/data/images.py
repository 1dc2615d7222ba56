"""Any real image file as uint8 pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

READER_VERSION = "1"
"""Raised whenever the same file would give other pixels, or another verdict on its health."""

_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}
_SIXTEEN_BIT = 65535


def read_pixels(source: Path | BytesIO, channels: int, *, stored_size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 [H, W, channels], upright, as a person would see it.

    EXIF rotation is applied, unless the pixels as they are stored have `stored_size` (width, height).
    What is transparent shows white. 16-bit grey is scaled by 1/257, not stretched. Float images are
    taken to lie in [0, 1], or in [0, 255] where they exceed 1. Of an animation, the first frame. Colour
    profiles are ignored.

    Raises:
        Exception: whatever Pillow raises on a file that it cannot decode in full.
    """
    return _read(source, channels, coarse=False, stored_size=stored_size)


def problem(content: bytes) -> str | None:
    """Why this file cannot be decoded in full, or None where it can."""
    try:
        _read(BytesIO(content), 3, coarse=True)
    # Pillow's decoders raise nearly anything on a damaged file (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        if isinstance(error, UnidentifiedImageError):
            return "not an image that can be read" if content else "empty file"
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def is_image(path: Path) -> bool:
    """Whether the file's first bytes are those of a known image format, whatever its name."""
    try:
        with Image.open(path):
            return True
    except Exception:
        return False


def _read(
    source: Path | BytesIO, channels: int, *, coarse: bool, stored_size: tuple[int, int] | None = None
) -> np.ndarray:
    with Image.open(source) as image:
        if coarse:
            # A JPEG is then decoded at an eighth of its size: the whole stream, a fraction of the time.
            image.draft(image.mode, (1, 1))
        image.load()
        turned = image if image.size == stored_size else _upright(image)
        pixels = np.array(_opaque(_eight_bit(turned)).convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # damaged metadata raises nearly anything; the pixels are sound
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, _SIXTEEN_BIT)
        return Image.fromarray(np.round(wide / 257).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        unit = 255 if values.max(initial=0) <= 1 else 1
        return Image.fromarray(np.round(values * unit).clip(0, 255).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image if image.mode == "L" else image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
