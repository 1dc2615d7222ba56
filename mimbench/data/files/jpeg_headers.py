"""What the header of a JPEG says about who can decode it."""

from __future__ import annotations

from typing import Any

from PIL import Image

_ORIENTATION = 0x0112
_LETTERS = [ord(letter) for letter in "RGB"]


def is_plain_jpeg(image: Image.Image, channels: int) -> bool:
    """Whether any decoder gives the pixels that Pillow gives: grey or YCbCr of 8 bits, stored upright.

    Not so are CMYK, colours that are stored as RGB, an EXIF rotation, and colour images that are read as grey.

    Args:
        image: opened, not decoded.
        channels: that are read.
    """
    if image.format != "JPEG" or not (image.mode == "L" or (image.mode == "RGB" and channels == 3)):
        return False
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            return False
    except Exception:  # damaged metadata raises nearly anything
        return False
    components: list[Any] = getattr(image, "layer", [])
    is_stored_as_rgb = image.info.get("adobe_transform") == 0 or [part[0] for part in components] == _LETTERS
    return image.mode == "L" or not is_stored_as_rgb
