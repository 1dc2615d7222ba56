"""Clips of one digit that moves over clutter, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COMPOSER_VERSION = "1"
"""Raised whenever the same seed and digits would give another clip."""

MOTIONS = {
    "right": (0, 1),
    "left": (0, -1),
    "down": (1, 1),
    "up": (1, -1),
    "clockwise": (2, 1),
    "counter-clockwise": (2, -1),
    "grow": (3, 1),
    "shrink": (3, -1),
}
"""Class -> (coordinate of the pose, direction). Neighbours are each other's time reversal."""
SCALES = (0.6, 1.4)
"""Least and greatest size of a digit, relative to MNIST's 28 px."""
_TURN = 2 * np.pi
_STEPS = (None, None, np.deg2rad(20) / _TURN, 1 / 12)
"""Change per frame of angle and size, as a share of their circle. Columns and rows move by px."""


@dataclass(frozen=True)
class ClipStyle:
    """What clips look like."""

    frames: int
    size: int
    """Side, px."""
    step: float
    """Change of place per frame, px."""
    clutter: int
    """Pieces of other digits in the background."""
    noise: float
    """Standard deviation of the noise in each frame; white is 1."""


def draw_clip(
    rng: np.random.RandomState, glyph: np.ndarray, pieces: np.ndarray, motion: str, style: ClipStyle
) -> np.ndarray:
    """A clip uint8 [T, size, size] of a digit that makes one motion.

    Column, row, angle and logarithm of the size each lie on a circle, and start anywhere on it: what leaves at one side
    comes in at the other, and the largest digit becomes the smallest. The motion changes one of them by a constant
    step. So each frame of each motion has the same distribution, and only the order of frames shows the motion.

    Args:
        glyph: the digit, uint8 [28, 28].
        pieces: digits that the clutter is cut from, uint8 [N, 28, 28].
    """
    background = _draw_background(rng, pieces, style)
    coordinate, direction = MOTIONS[motion]
    pose = np.tile(rng.uniform(0, 1, 4), (style.frames, 1))
    step = _STEPS[coordinate]
    pose[:, coordinate] += direction * (style.step / style.size if step is None else step) * np.arange(style.frames)
    opacity = _place(glyph / 255, pose % 1, style.size)
    clip = background + opacity * (rng.uniform(0.7, 1.0) - background)
    clip = clip + rng.normal(0, style.noise, clip.shape)
    return np.round(clip.clip(0, 1) * 255).astype(np.uint8)


def _draw_background(rng: np.random.RandomState, pieces: np.ndarray, style: ClipStyle) -> np.ndarray:
    """Dim, with pieces of digits that stay where they are, [size, size]."""
    canvas = np.full((style.size, style.size), rng.uniform(0.05, 0.25))
    for _ in range(style.clutter):
        side = rng.randint(6, 13)
        top, left = rng.randint(4, 24 - side + 1, 2)
        piece = pieces[rng.randint(len(pieces))][top : top + side, left : left + side] / 255
        rows, columns = ((rng.randint(style.size) + np.arange(side)) % style.size for _ in range(2))
        window = np.ix_(rows, columns)
        canvas[window] += piece * (rng.uniform(0.4, 0.9) - canvas[window])
    return canvas


def _place(glyph: np.ndarray, pose: np.ndarray, size: int) -> np.ndarray:
    """The digit's opacity in each frame, [T, size, size].

    pose: [T, 4], column, row, angle and logarithm of the size, each as a share of its circle in [0, 1).
    """
    column, row, angle, scale = (one[:, None, None] for one in pose.T)
    scale = SCALES[0] * (SCALES[1] / SCALES[0]) ** scale
    pixel = np.arange(size)
    # Distance from the digit's centre on the torus, px.
    across = (pixel[None, None, :] - column * size + size / 2) % size - size / 2
    down = (pixel[None, :, None] - row * size + size / 2) % size - size / 2
    cosine, sine = np.cos(angle * _TURN), np.sin(angle * _TURN)
    centre = (len(glyph) - 1) / 2
    return _sample(
        np.pad(glyph, 1),
        (cosine * down - sine * across) / scale + centre,
        (cosine * across + sine * down) / scale + centre,
    )


def _sample(padded: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation in an image with a border of one empty pixel; 0 outside of it."""
    last = len(padded) - 2
    rows, columns = np.clip(rows + 1, 0, last + 1 - 1e-9), np.clip(columns + 1, 0, last + 1 - 1e-9)
    top, left = rows.astype(int), columns.astype(int)
    y, x = rows - top, columns - left
    upper = padded[top, left] * (1 - x) + padded[top, left + 1] * x
    lower = padded[top + 1, left] * (1 - x) + padded[top + 1, left + 1] * x
    return upper * (1 - y) + lower * y
