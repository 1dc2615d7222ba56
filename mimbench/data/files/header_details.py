"""What headers of TIFF and JPEG 2000 files say beyond Pillow's mode."""

from __future__ import annotations

from typing import Any

from PIL import Image

_SAMPLES_PER_PIXEL, _PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 277, 262, 338, 339
_BITS_PER_SAMPLE, _PLANAR = 258, 284
_WHITE_IS_ZERO, _CMYK = 0, 5
_COLOUR_BANDS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, 3: 1, _CMYK: 4, 6: 3, 8: 3}
"""Bands of a TIFF by its photometric interpretation; whatever it has beyond them is an extra sample."""
_ALPHA_SAMPLES = {1, 2, 999}
"""Associated, unassociated, and Corel Draw's own number."""
_SIGNED = 2
_SEPARATE = 2
"""Bands that follow each other, as opposed to pixels."""
_CODESTREAM = b"\xff\x4f\xff\x51"
"""JPEG 2000's markers SOC and SIZ; 38 bytes on are the number of components, and the depth of the first one."""


def raw_mode(image: Image.Image) -> str:
    """How Pillow will unpack the file, such as "RGB;16B"."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        return mode if isinstance(mode, str) else ""
    return ""


def is_signed(image: Image.Image) -> bool:
    return _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED


def is_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF, and larger values are darker."""
    return _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO


def has_extra_bands(image: Image.Image) -> bool:
    """Whether a TIFF has bands beyond its colours that it does not declare to be transparency."""
    if image.format != "TIFF":
        return False
    beyond = _tag(image, _SAMPLES_PER_PIXEL, 1) - _COLOUR_BANDS.get(_tag(image, _PHOTOMETRIC, 1), 1)
    return beyond > sum(sample in _ALPHA_SAMPLES for sample in _tags(image).get(_EXTRA_SAMPLES, ()))


def check_decodable(image: Image.Image) -> None:
    """Raise ValueError for a file of which Pillow 13 would give wrong pixels without an error."""
    if image.format == "JPEG2000" and image.mode != "I;16" and _depth_of_jpeg_2000(image) > 8:
        raise ValueError("it is a JPEG 2000 image in colours of more than 8 bits, which is not read: save it as PNG")
    tiles = getattr(image, "tile", ())  # of opened images alone
    if image.format != "TIFF" or not tiles:
        return
    compressed = tiles[0][0] == "libtiff"
    if not compressed and _tag(image, _PLANAR, 1) == _SEPARATE and image.mode != "I;16" and _is_deep(image):
        raise ValueError("it is a TIFF of 16-bit bands one after the other, which is not read: save it by pixels")
    big_endian = getattr(_tags(image), "prefix", b"") == b"MM"
    if compressed and big_endian and image.mode in ("I", "F"):
        raise ValueError(
            "it is a compressed big-endian TIFF of signed, 32-bit or float values, which is not read: save it "
            "uncompressed or little-endian"
        )


def _is_deep(image: Image.Image) -> bool:
    return max(_tags(image).get(_BITS_PER_SAMPLE, (1,))) > 8


def _depth_of_jpeg_2000(image: Any) -> int:
    """Bits per component of an opened image; 0 if the file does not say."""
    stream = image.fp
    position = stream.tell()
    stream.seek(0)
    start = stream.read(1_000_000)
    stream.seek(position)
    place = start.find(_CODESTREAM)
    depth = start[place + 42 : place + 43] if place >= 0 else b""
    return (depth[0] & 0x7F) + 1 if depth else 0


def _tags(image: Image.Image) -> dict:
    return getattr(image, "tag_v2", {})


def _tag(image: Image.Image, tag: int, default: int) -> int:
    value = _tags(image).get(tag, default)
    return value[0] if isinstance(value, tuple) else value
