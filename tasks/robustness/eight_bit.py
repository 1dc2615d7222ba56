"""Images of 8 bits between steps on floats in [0, 1], as the libraries beneath the authors' code leave them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def cut(x: np.ndarray) -> np.ndarray:
    """uint8, cut off as numpy's cast does. The small number keeps whole values that a sum left just below whole."""
    return (x.clip(0, 1) * 255 + 1e-6).astype(np.uint8)


def rounded(x: np.ndarray) -> np.ndarray:
    """To the values of 8 bits, in [0, 1], as ImageMagick returns them."""
    return np.rint(x.clip(0, 1) * 255) / 255


def recompressed(x: np.ndarray, quality: int) -> np.ndarray:
    """What a JPEG of an 8-bit image in [0, 1] holds."""
    buffer = io.BytesIO()
    picture(x).save(buffer, "JPEG", quality=quality)
    return pixels(Image.open(buffer), x.shape)


def picture(x: np.ndarray) -> Image.Image:
    """An 8-bit image in [0, 1] as Pillow has it."""
    bytes_ = np.rint(x * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(bytes_[..., 0] if x.shape[2] == 1 else bytes_))


def pixels(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(image).reshape(shape) / 255
