"""Annotations of semantic segmentation: images of one class number per pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mimbench.data.files.image_reading import MAX_PIXELS, open_image

_IGNORED = 255
_GREY = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of one number per pixel; of a palette, the index counts."""


def read_values(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """int64 [H, W]: the numbers that an annotation holds.

    Raises:
        ValueError: it is no PNG, no grey or palette image, or too large.
        Exception: whatever Pillow raises on a file that it cannot decode.
    """
    with open_image(path, max_pixels) as image:
        if image.format != "PNG":
            raise ValueError(f"is {image.format} inside, not PNG; others may have changed the class numbers")
        if image.mode not in _GREY:
            raise ValueError(
                f"is an image of mode {image.mode}, not grey with one class number per pixel (ADE20K's scene parsing "
                "release, ADEChallengeData2016, has such; the full release colours its annotations)"
            )
        return np.array(image).astype(np.int64)


def read_labels(path: Path, classes: int, reduce: bool, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """uint8 [H, W]: the class of each pixel, from 0; 255 for ignored pixels.

    reduce: as `Ade20kConfig.reduce_zero_label`.

    Raises:
        ValueError: it is no PNG, no grey or palette image, too large, or holds a value beyond the classes.
        Exception: whatever Pillow raises on a file that it cannot decode.
    """
    values = read_values(path, max_pixels)
    labels = np.where((values == 0) | (values == _IGNORED), _IGNORED, values - 1) if reduce else values
    outside = values[(labels != _IGNORED) & ((labels < 0) | (labels >= classes))]
    if outside.size:
        highest = classes if reduce else classes - 1
        raise ValueError(
            f"holds the value {outside.flat[0]}; {classes} classes have values {int(reduce)} to {highest} "
            f"(data.classes, data.reduce_zero_label)"
        )
    return labels.astype(np.uint8)
