"""Filters and textures that corruptions are made of."""

from __future__ import annotations

import functools
import math
from typing import Literal

import numpy as np


def correlate(x: np.ndarray, kernel: np.ndarray, edge: Literal["reflect", "edge"]) -> np.ndarray:
    """Correlation of [H, W, C] with a kernel of odd sides, or [H, W, 1] with several of them, [h, w, K].

    edge: numpy's name of what lies outside.
    """
    from scipy.signal import fftconvolve  # takes a second to import

    kernels = kernel.reshape(*kernel.shape[:2], -1)
    down, right = (side // 2 for side in kernel.shape[:2])
    padded = np.pad(x, ((down, down), (right, right), (0, 0)), mode=edge)
    return fftconvolve(padded, kernels[::-1, ::-1], mode="valid", axes=(0, 1))


def gaussian_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def smooth_field(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [H, W], mirrored at its edges, at the same cost for any sigma: a product of its cosines."""
    from scipy import fft

    decay = [np.exp(-0.5 * (sigma * np.pi * np.arange(side) / side) ** 2) for side in field.shape]
    return fft.idctn(fft.dctn(field) * np.outer(*decay))


@functools.cache
def make_disk(radius: float, sigma: float) -> np.ndarray:
    """A disk of sum 1 on 17 x 17 px, smoothed by a Gaussian of 3 x 3 px; above a radius of 8, all that holds it, 5 x 5.

    At radius 8 the disk touches the edges, which reflect what the Gaussian takes from beyond.
    """
    from scipy import ndimage

    reach, cut = (8, 1) if radius <= 8 else (int(radius), 2)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    disk /= disk.sum()
    bell = np.exp(-0.5 * (np.arange(-cut, cut + 1) / sigma) ** 2)
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, bell / bell.sum(), axis, mode="mirror")
    return disk


def make_streak(radius: float, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur: weights of a one-sided Gaussian along `angle`, degrees, from the centre outwards."""
    steps = np.arange(2 * int(radius) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    rows, columns = (np.ceil(steps * f(math.radians(angle)) - 0.5).astype(int) for f in (math.sin, math.cos))
    kernel = np.zeros((2 * steps[-1] + 1,) * 2)
    np.add.at(kernel, (steps[-1] + rows, steps[-1] + columns), weights / weights.sum())
    return kernel


def zoom_centre(x: np.ndarray, factor: float) -> np.ndarray:
    """The centre of [H, W, C], enlarged by linear interpolation, as scipy.ndimage.zoom places it."""
    near, far, share = _zoom_places(x.shape[0], factor)
    x = x[near] + share[:, None, None] * (x[far] - x[near])
    near, far, share = _zoom_places(x.shape[1], factor)
    return x[:, near] + share[:, None] * (x[:, far] - x[:, near])


@functools.lru_cache(maxsize=512)
def _zoom_places(side: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place in the enlarged line: its two neighbours in the line, and the second one's share."""
    shown = math.ceil(side / factor)
    enlarged = round(shown * factor)
    places = np.arange(side) + (enlarged - side) // 2
    source = (side - shown) // 2 + places * (shown - 1) / max(enlarged - 1, 1)
    near = np.floor(source).astype(int)
    return near, np.minimum(near + 1, side - 1), source - near


def draw_plasma(shape: tuple[int, int], decay: float, random: np.random.RandomState) -> np.ndarray:
    """Clouds in [0, 1] by the diamond-square algorithm; noise falls by decay ** 2 from each scale to the next."""
    step = 1 << max(1, math.ceil(math.log2(max(shape))))
    field = np.zeros((step, step))
    amplitude = 1.0
    while step > 1:
        half = step // 2
        noise = random.uniform(-amplitude, amplitude, size=(3, len(field) // step, len(field) // step))
        corners = field[::step, ::step]
        right, below = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        centres = (corners + right + below + np.roll(right, -1, 0)) / 4 + noise[0]
        field[half::step, half::step] = centres
        field[::step, half::step] = (corners + right + centres + np.roll(centres, 1, 0)) / 4 + noise[1]
        field[half::step, ::step] = (corners + below + centres + np.roll(centres, 1, 1)) / 4 + noise[2]
        step, amplitude = half, amplitude / decay**2
    field -= field.min()
    return (field / field.max())[: shape[0], : shape[1]]


def draw_ice(shape: tuple[int, int], random: np.random.RandomState) -> np.ndarray:
    """Frost on a pane, in [0, 1]: a film of changing thickness, with six-armed crystals on it."""
    film = draw_plasma(shape, 1.6, random)
    length = max(min(shape) / 8, 1.0)
    seeds = (random.random_sample(shape) < 0.15 / length)[..., None].astype(float)
    turn = random.uniform(0, 60)
    arms = np.stack([make_streak(length, length / 2, turn + angle) for angle in range(0, 360, 60)], axis=2)
    crystals = correlate(seeds, arms / arms.max(axis=(0, 1)), "reflect").max(axis=2)
    return (0.7 * film + 0.6 * crystals).clip(0, 1)
