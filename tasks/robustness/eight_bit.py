"""Rounding to 8 bits between steps on floats in [0, 1], as in the libraries that the authors' code uses."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def cut(x: np.ndarray) -> np.ndarray:
    """To uint8, truncated as numpy's cast does. The small addend keeps integers that rounding errors put just below."""
    return (x.clip(0, 1) * 255 + 1e-6).astype(np.uint8)


def rounded(x: np.ndarray) -> np.ndarray:
    """Rounded to multiples of 1/255 in [0, 1], as ImageMagick returns images."""
    return np.rint(x.clip(0, 1) * 255) / 255


def recompressed(x: np.ndarray, quality: int) -> np.ndarray:
    """An 8-bit image in [0, 1] after saving it as JPEG and reading it again."""
    buffer = io.BytesIO()
    picture(x).save(buffer, "JPEG", quality=quality)
    return pixels(Image.open(buffer), x.shape)


def picture(x: np.ndarray) -> Image.Image:
    """An 8-bit image in [0, 1] as a Pillow image."""
    bytes_ = np.rint(x * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(bytes_[..., 0] if x.shape[2] == 1 else bytes_))


def pixels(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(image).reshape(shape) / 255
