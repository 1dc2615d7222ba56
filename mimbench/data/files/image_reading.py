"""Any real image file as uint8 pixels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps

from mimbench.data.files.header_details import check_decodable, has_extra_bands, is_signed, is_white_zero, raw_mode

READER_VERSION = "2"
"""Raised whenever the same file would give other pixels."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "MPO"),
    *("AVIF", "HEIF", "ICO", "PCX", "QOI", "SGI", "TGA"),
)
"""What is read, by content. Pillow knows more, among them formats that start other programs (EPS, WMF)."""
MAX_PIXELS = 64_000_000
"""Pixels of one image, at most, unless a policy says otherwise. Cameras of 60 Mpx and ImageNet (20) stay below."""

DEEP_CMYK = "16-bit CMYK"
NO_RANGE_OF_CMYK = "a range cannot be applied to CMYK of 16 bits"
EXTRA_BANDS = "it has bands beyond its colours that are not declared as transparency"

# `open_image` has its own limit, below the number of pixels that Pillow warns of.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_ALPHA_MODES = {"RGBA", "LA", "PA", "RGBa", "La"}
_ORIENTATION = 0x0112

Range = tuple[float, float]
Source = Path | IO[bytes]
Reduction = Callable[[int, int], int]
"""Height and width of a whole image, px -> by how much its sides may be reduced when it is decoded: 1, 2, 4 or 8."""


@dataclass(frozen=True)
class PixelPolicy:
    """How stored values become grey levels 0 to 255."""

    range: Range | None = None
    """The stored values that become 0 and 255. None: 0 to 255 of 8 bits, 0 to 65535 of deeper integers."""
    float_range: Range | None = None
    """Where `range` is None, that of float images. None: it is not known, and they are refused."""
    transparency: Literal["white", "drop"] = "white"
    """What is transparent shows white, or the colour that is stored under it."""
    extra_bands: Literal["refuse", "drop"] = "refuse"
    """A TIFF's bands beyond its colours that the file does not declare to be transparency."""
    max_pixels: int = MAX_PIXELS

    def range_for(self, kind: str) -> Range:
        """The range for images of this kind (see `stored_kind`). Raises ValueError if it is not known."""
        scale = self.range or (self.float_range if kind == "float" else CONTAINERS[kind])
        if scale is None:
            raise ValueError("it is a float image, and the range of its values is not known")
        return scale

    def check_values(self, low: float, high: float, kind: str) -> None:
        """Raises ValueError for values outside of a range that was not given; others are clipped to it."""
        scale = self.range_for(kind)
        if self.range is None and not is_within(low, high, scale, kind):
            raise ValueError(f"its values, {low:g} to {high:g}, leave the range of {scale[0]:g} to {scale[1]:g}")


CONTAINERS: dict[str, Range] = {
    "8-bit": (0, 255),
    "signed 8-bit": (0, 255),
    "16-bit": (0, 65535),
    "16-bit colour": (0, 65535),
    DEEP_CMYK: (0, 65535),
    "signed 16-bit": (0, 65535),
    "32-bit": (0, 65535),
    "unsigned 32-bit": (0, 65535),
}
"""Ranges of integers, by kind."""
IN_EIGHT_BITS = ("8-bit", "16-bit colour", DEEP_CMYK)
"""Kinds that Pillow decodes to 8 bits; of 16-bit colours it takes the upper byte."""
DEFAULT_POLICY = PixelPolicy()
ANY_VALUES = PixelPolicy(range=(0, 1))
"""Takes all values: for whoever judges their range later, for a set as a whole."""


class TooManyPixels(ValueError):
    """An image beyond the limit; it was not decoded."""

    def __init__(self, limit: int, size: tuple[int, int] | None = None) -> None:
        """size: width and height, if Pillow has read them."""
        has = f"{size[0]} x {size[1]} px, " if size else ""
        super().__init__(f"it has {has}more than the {limit / 1e6:g} million pixels that the option max_pixels allows")


def read_pixels(
    source: Source,
    channels: int,
    policy: PixelPolicy = DEFAULT_POLICY,
    *,
    stored_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 [H, W, channels], upright, as a person would see it.

    EXIF rotation is applied, unless the pixels as they are stored have `stored_size` (width, height). Values are scaled
    as the policy says, and those beyond a range that it gives are clipped.
    CMYK becomes RGB. Of an animation or a file of several pages, the first one. Colour profiles are ignored.

    Raises:
        ValueError: too many pixels, values that are not finite or outside of the range that the format implies, bands
            of no known meaning.
        Exception: whatever else Pillow raises on a file that it cannot decode in full.
    """
    return _read(source, channels, policy, stored_size, None)[0]


def read_reduced(
    source: Source, channels: int, policy: PixelPolicy, reduction: Reduction
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_pixels`, and a JPEG is decoded at a half, a fourth or an eighth of its sides if `reduction` permits it.

    The decoder then computes fewer pixels, each a mean over a block of the whole image.

    Returns:
        uint8 [h, w, channels], and height and width of the whole image. h is the height divided by what `reduction`
        returns for them, rounded up, and equally w.
    """
    return _read(source, channels, policy, None, reduction)


def _read(
    source: Source,
    channels: int,
    policy: PixelPolicy,
    stored_size: tuple[int, int] | None,
    reduction: Reduction | None,
) -> tuple[np.ndarray, tuple[int, int]]:
    # Not by path: Pillow maps uncompressed files into memory, with confused pixels if a TIFF's tag turns them.
    with (
        nullcontext(source) if not isinstance(source, Path) else source.open("rb") as stream,
        open_image(stream, policy.max_pixels) as image,
    ):
        kind, extra = stored_kind(image), has_extra_bands(image)
        if extra and policy.extra_bands == "refuse":
            raise ValueError(EXTRA_BANDS)
        if kind == DEEP_CMYK and policy.range:
            raise ValueError(f"{NO_RANGE_OF_CMYK}: save it as RGB")
        size = _reduce(image, reduction) if reduction and image.format == "JPEG" else None
        is_negative = is_white_zero(image) and kind not in IN_EIGHT_BITS  # of 8 bits, Pillow turns them into positives
        if kind == "16-bit colour" and policy.range:
            shown = _turned(_scaled_colours(stream, image, policy.range), stored_size)
        else:
            image.load()
            shown = _scaled(_turned(image, stored_size), kind, policy)
            shown = ImageOps.invert(shown) if is_negative else shown
        # Pillow takes a fourth band without a declared meaning for transparency.
        drop = policy.transparency == "drop" or extra
        pixels = np.array(_opaque(shown, drop=drop).convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels), size or (pixels.shape[0], pixels.shape[1])


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image after its EXIF rotation, px."""
    try:
        is_on_its_side = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
    except Exception:  # damaged metadata raises nearly anything
        is_on_its_side = False
    return image.size if is_on_its_side else (image.height, image.width)


def _reduce(image: Image.Image, reduction: Reduction) -> tuple[int, int]:
    """Set the scale at which a JPEG will be decoded, and return its whole height and width."""
    height, width = upright_size(image)
    factor = reduction(height, width)
    if factor > 1:
        image.draft(image.mode, (max(1, image.width // factor), max(1, image.height // factor)))
    return height, width


def open_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The opened image, not yet decoded, if it is of a format that is read and not too large.

    Raises:
        TooManyPixels: the header declares more than `max_pixels`.
        Exception: whatever Pillow raises on a file that it cannot open, and ValueError for one that it would misread.
    """
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # Pillow's own limit holds for the whole process; it is only ever raised
    try:
        image = Image.open(source, formats=_formats())
    except Image.DecompressionBombError as error:
        raise TooManyPixels(max_pixels) from error
    if image.width * image.height > max_pixels:
        raise TooManyPixels(max_pixels, image.size)
    check_decodable(image)
    return image


def is_image(path: Path) -> bool:
    """Whether the file's first bytes are those of a format that is read, whatever its name."""
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:
        return False


def stored_kind(image: Image.Image) -> str:
    """How the values of an opened image are stored: "float", or a key of CONTAINERS."""
    raw, signed = raw_mode(image), is_signed(image)
    if image.mode == "F":
        return "float"
    if image.mode == "I":
        if raw.startswith("I;16") or image.format != "TIFF":
            return "signed 16-bit" if raw.startswith("I;16S") or signed else "16-bit"
        return "32-bit" if signed else "unsigned 32-bit"
    if image.mode.startswith("I;16"):
        return "signed 16-bit" if signed else "16-bit"
    if ";16" in raw:
        return DEEP_CMYK if image.mode == "CMYK" else "16-bit colour"
    return "signed 8-bit" if signed and image.mode == "L" else "8-bit"


def has_transparency(image: Image.Image) -> bool:
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def stored_values(image: Image.Image, kind: str) -> np.ndarray:
    """[H, W]: the values of a decoded image of any kind but those IN_EIGHT_BITS.

    Raises:
        ValueError: some of them are not finite.
    """
    values = np.asarray(image)
    if kind == "float" and not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite (NaN or infinite)")
    types = {"signed 8-bit": np.int8, "unsigned 32-bit": np.uint32}
    return values.view(types[kind]) if kind in types else values


def is_within(low: float, high: float, scale: Range, kind: str) -> bool:
    """Whether values lie in a range. Float images may leave it by half a grey level, as when they were resized."""
    slack = (scale[1] - scale[0]) / 510 if kind == "float" else 0
    return scale[0] - slack <= low and high <= scale[1] + slack


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turned(image: Image.Image, stored_size: tuple[int, int] | None) -> Image.Image:
    return image if image.size == stored_size else _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except Exception:  # damaged metadata raises nearly anything; the pixels are sound
        return image


def _scaled(image: Image.Image, kind: str, policy: PixelPolicy) -> Image.Image:
    if kind in IN_EIGHT_BITS:
        return _scaled_bytes(image, policy.range) if policy.range else image
    values = stored_values(image, kind)
    policy.check_values(values.min(), values.max(), kind)
    return Image.fromarray(_grey_levels(values, policy.range_for(kind)))


def _scaled_bytes(image: Image.Image, scale: Range) -> Image.Image:
    if has_transparency(image):
        image = image.convert("RGBA")
    elif image.mode != "L":
        image = image.convert("L" if image.mode == "1" else "RGB")
    table = _grey_levels(np.arange(256), scale).tolist()
    alpha = list(range(256)) if image.mode == "RGBA" else []
    return image.point(table * (len(image.getbands()) - bool(alpha)) + alpha)


def _scaled_colours(stream: IO[bytes], image: Image.Image, scale: Range) -> Image.Image:
    """16-bit colours at their full depth, which Pillow cannot read."""
    import cv2

    orientation = image.getexif().get(_ORIENTATION, 1) if image.format != "TIFF" else 1  # OpenCV turns TIFFs itself
    stream.seek(0)
    values = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("its 16-bit colours cannot be read at their full depth: save it with 8 bits")
    bands = [_grey_levels(values[..., band], scale) for band in (2, 1, 0)]
    if values.shape[2] == 4:
        bands.append((values[..., 3] >> 8).astype(np.uint8))
    shown = Image.fromarray(np.stack(bands, axis=-1))
    shown.getexif()[_ORIENTATION] = orientation
    return shown


def _grey_levels(values: np.ndarray, scale: Range) -> np.ndarray:
    low, high = scale
    values = values.astype(np.float64)
    return np.round((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _opaque(image: Image.Image, *, drop: bool) -> Image.Image:
    if not has_transparency(image):
        return image if image.mode == "L" else image.convert("RGB")
    image = image.convert("RGBA")
    if drop:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
