"""One scene of digits over clutter, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COMPOSER_VERSION = "1"
"""Raised whenever the same seed and digits would give another scene."""

MNIST_SIDE = 28
INK = 0.4
"""Opacity from which a pixel counts as part of the digit."""
_LEAST_VISIBLE = 0.6
"""Share of a digit's ink that stays inside the image and uncovered; a draw that leaves less is redrawn."""
_MOST_OVERLAP = 0.35
"""Greatest intersection over union of two digits' boxes."""
_TRIES = 20

Box = tuple[int, int, int, int]
"""left, top, right, bottom, px; right and bottom exclusive."""


@dataclass(frozen=True)
class Glyphs:
    """Digits cut to their ink: uint8 [h, w], with labels."""

    shapes: list[np.ndarray]
    labels: np.ndarray

    @classmethod
    def cut(cls, images: np.ndarray, labels: np.ndarray) -> Glyphs:
        """images: uint8 [N, 28, 28]."""
        return cls([image[_span(image, 1), _span(image, 0)] for image in images], labels)

    def draw(self, rng: np.random.RandomState) -> tuple[np.ndarray, int]:
        index = rng.randint(len(self.shapes))
        return self.shapes[index], int(self.labels[index])


@dataclass
class Instance:
    """A digit in a scene: its ink as placed, and what of it later digits left visible; bool [size, size]."""

    label: int
    ink: int
    """Pixels of ink as drawn, off-image ones included."""
    visible: np.ndarray

    @property
    def box(self) -> Box:
        """The tight box of what is visible."""
        rows, columns = _span(self.visible, 1), _span(self.visible, 0)
        return columns.start, rows.start, columns.stop, rows.stop


@dataclass(frozen=True)
class Scene:
    pixels: np.ndarray
    """uint8 [size, size]."""
    instances: list[Instance]


def compose(
    rng: np.random.RandomState, glyphs: Glyphs, size: int, digits: tuple[int, int], scale: tuple[float, float]
) -> Scene:
    """A scene of `digits` (least, most) digits, each `scale` (least, most) times its MNIST size.

    Later digits cover earlier ones. If no room is left, fewer digits than requested appear, but at least one.
    """
    canvas = _clutter(rng, glyphs, size)
    instances: list[Instance] = []
    for _ in range(rng.randint(digits[0], digits[1] + 1)):
        _add_digit(rng, canvas, glyphs, scale, instances)
    return _developed(rng, canvas, instances)


def compose_in_order(
    rng: np.random.RandomState, glyphs: Glyphs, size: int, scales: Sequence[float]
) -> tuple[Scene, list[int]]:
    """A scene of digits of these scales, of which later ones cover earlier ones.

    Returns:
        The scene, and the position in `scales` of each of its instances: those that found room.
    """
    canvas = _clutter(rng, glyphs, size)
    instances: list[Instance] = []
    placed: list[int] = []
    for position, scale in enumerate(scales):
        _add_digit(rng, canvas, glyphs, (scale, scale), instances)
        if len(instances) > len(placed):
            placed.append(position)
    return _developed(rng, canvas, instances), placed


def _clutter(rng: np.random.RandomState, glyphs: Glyphs, size: int) -> np.ndarray:
    canvas = _background(rng, size)
    _add_strokes(rng, canvas)
    _add_fragments(rng, canvas, glyphs)
    return canvas


def _developed(rng: np.random.RandomState, canvas: np.ndarray, instances: list[Instance]) -> Scene:
    """The scene with noise, in whole grey levels."""
    canvas += rng.normal(0, rng.uniform(0.01, 0.05), canvas.shape)
    return Scene(np.round(canvas.clip(0, 1) * 255).astype(np.uint8), instances)


def _background(rng: np.random.RandomState, size: int) -> np.ndarray:
    """A dim gradient under soft blotches."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, size)
    ramp = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None]
    blotches = resized(rng.uniform(-1, 1, (5, 5)), size, size)
    return rng.uniform(0.1, 0.3) + rng.uniform(0, 0.25) * ramp + rng.uniform(0, 0.08) * blotches


def _add_strokes(rng: np.random.RandomState, canvas: np.ndarray) -> None:
    size = len(canvas)
    for _ in range(rng.randint(0, 3)):
        layer = Image.new("L", (size, size))
        ends = [int(value) for value in rng.randint(0, size, 4)]
        width = int(rng.randint(1, 3))
        if rng.uniform() < 0.5:
            ImageDraw.Draw(layer).line(ends, fill=255, width=width)
        else:
            corners = [*np.minimum(ends[:2], ends[2:]), *np.maximum(ends[:2], ends[2:])]
            start = int(rng.randint(0, 360))
            ImageDraw.Draw(layer).arc([int(v) for v in corners], start, start + 120, fill=255, width=width)
        _paint(canvas, np.asarray(layer) / 255, rng.uniform(0.3, 0.6))


def _add_fragments(rng: np.random.RandomState, canvas: np.ndarray, glyphs: Glyphs) -> None:
    """Pieces of digits, too small to be digits."""
    size = len(canvas)
    for _ in range(rng.randint(0, 4)):
        shape, _ = glyphs.draw(rng)
        side = rng.randint(4, 7)
        top, left = (rng.randint(0, max(1, extent - side)) for extent in shape.shape)
        piece = shape[top : top + side, left : left + side] / 255
        y, x = rng.randint(0, size - side, 2)
        window = canvas[y : y + piece.shape[0], x : x + piece.shape[1]]
        _paint(window, piece, rng.uniform(0.3, 0.7))


def _add_digit(
    rng: np.random.RandomState,
    canvas: np.ndarray,
    glyphs: Glyphs,
    scale: tuple[float, float],
    instances: list[Instance],
) -> None:
    size = len(canvas)
    for _ in range(_TRIES):
        shape, label = glyphs.draw(rng)
        factor = rng.uniform(*scale)
        height, width = (max(2, round(extent * factor)) for extent in shape.shape)
        # Up to a fifth may lie outside; the first digit is inside whole, so that no scene is empty.
        slack = 0.2 if instances else 0.0
        top = int(np.floor(rng.uniform(-slack * height, size - height + slack * height)))
        left = int(np.floor(rng.uniform(-slack * width, size - width + slack * width)))
        brightness = rng.uniform(0.6, 1.0)
        opacity = resized(shape / 255, height, width).clip(0, 1)
        layer = placed(opacity, top, left, size)
        added = Instance(label, int((opacity > INK).sum()), layer > INK)
        if _fits(added, instances):
            _paint(canvas, layer, brightness)
            for earlier in instances:
                earlier.visible &= ~added.visible
            instances.append(added)
            return


def _fits(added: Instance, instances: list[Instance]) -> bool:
    if added.visible.sum() < max(1, _LEAST_VISIBLE * added.ink):
        return False
    return all(
        _overlap(added.box, earlier.box) <= _MOST_OVERLAP
        and (earlier.visible & ~added.visible).sum() >= _LEAST_VISIBLE * earlier.ink
        for earlier in instances
    )


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def placed(opacity: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """`opacity` on an empty [size, size] layer, cut at its borders."""
    layer = np.zeros((size, size))
    inside = opacity[max(0, -top) : size - top, max(0, -left) : size - left]
    y, x = max(0, top), max(0, left)
    layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return layer


def _paint(window: np.ndarray, opacity: np.ndarray, brightness: float) -> None:
    window += opacity * (brightness - window)


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def _span(image: np.ndarray, axis: int) -> slice:
    """First to last row (axis 1) or column (axis 0) that is not empty."""
    inked = np.flatnonzero(image.any(axis=axis))
    return slice(int(inked[0]), int(inked[-1]) + 1)
