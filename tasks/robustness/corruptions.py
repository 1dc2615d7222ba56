"""The 15 common corruptions of Hendrycks & Dietterich (arXiv:1903.12261), for grey and RGB images of any size.

Written from the paper and the behaviour of its code (see severities.py), because the packages that exist draw from
numpy's global generator, refuse images below 32 px or know one size only. As there, results are cut off to 8 bits,
glass_blur and snow also on the way, and saved as JPEG if the published set was (severities.JPEG_QUALITY). The draws
differ from those of the published sets, so that scores are close to, not equal to, scores on CIFAR-10-C or ImageNet-C.
DEPARTURES lists the other differences.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from mimbench_tasks.robustness.eight_bit import cut, picture, pixels, recompressed, rounded
from mimbench_tasks.robustness.filters import (
    correlate,
    draw_ice,
    draw_plasma,
    gaussian_blur,
    make_disk,
    make_streak,
    smooth_field,
    zoom_centre,
)
from mimbench_tasks.robustness.severities import CORRUPTIONS, Constants, constants_for

FROST = "a procedural stand-in for the photographs of frost that the authors blend in"
DEPARTURES = (
    f"frost: {FROST}",
    "fog: on images above 256 px the fractal covers the whole image",
    "elastic_transform: displacements are smoothed by a Gaussian that is not cut off at 3 deviations",
    "all: the random draws are not those of the published sets",
)
"""In what these corruptions differ from those of the published sets, for the record."""
SEED = 19032612
"""Of every corruption of every image, with its name, severity and place in the split: the same for all methods."""
_ICE = np.array([0.82, 0.93, 1.0])
"""The tint of frost, RGB."""

Corruption = Callable[[np.ndarray, Constants, np.random.RandomState], np.ndarray]
"""(float [H, W, C] in [0, 1], its constants, a generator) -> the same, corrupted, not yet clipped to [0, 1]."""


def corrupt(image: np.ndarray, name: str, severity: int, index: int, *, quality: int = 0) -> np.ndarray:
    """Corrupt one image.

    image: uint8 [C, H, W], C 1 or 3. name: one of CORRUPTIONS. severity: 1 to 5. index: the image's place in its
    split; equal arguments give the same result to the last bit. quality: of the JPEG that the result is saved as and
    read from again; 0: it is not.
    """
    # RandomState and the bits of PCG64: both streams are frozen, so an image is the same with every numpy release.
    seed = np.random.SeedSequence([SEED, CORRUPTIONS.index(name), severity, index])
    random = np.random.RandomState(np.random.PCG64(seed))
    constants = constants_for(*image.shape[1:])[1][name][severity - 1]
    corrupted = _BY_NAME[name](image.transpose(1, 2, 0) / 255, constants, random)
    result = cut(corrupted)
    if quality:
        result = np.rint(255 * recompressed(result / 255, quality)).astype(np.uint8)
    return result.transpose(2, 0, 1)


# --- noise -----------------------------------------------------------------------------------------------------------


def gaussian_noise(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: standard deviation."""
    return x + random.normal(scale=c[0], size=x.shape)


def shot_noise(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: photons of a white pixel."""
    return random.poisson(x * c[0]) / c[0]


def impulse_noise(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """Salt and pepper. c: share of the values that become 0 or 1."""
    struck, white = random.random_sample((2, *x.shape)) < np.array([c[0], 0.5])[:, None, None, None]
    return np.where(struck, white, x)


# --- blur ------------------------------------------------------------------------------------------------------------


def defocus_blur(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: radius of a disk, and the standard deviation of the small Gaussian that smooths its edge."""
    return correlate(x, make_disk(*c), "reflect")


def glass_blur(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """Pixels become copies of near ones, between two Gaussian blurs. c: deviation of these, reach, and rounds.

    The authors' code means to exchange pixels, but its assignment leaves the near one as it is; so did it make the
    published sets.
    """
    sigma, reach, rounds = c[0], int(c[1]), int(c[2])
    height, width, channels = x.shape
    rows = np.arange(height - reach, reach, -1)[:, None]
    columns = np.arange(width - reach, reach, -1)
    order = list(range(height * width))
    for _ in range(rounds):
        down, right = random.randint(-reach, reach, size=(2, len(rows), len(columns)))
        here = (rows * width + columns).ravel().tolist()
        there = ((rows + down) * width + columns + right).ravel().tolist()
        for one, other in zip(here, there, strict=True):  # one after the other: some are copies of copies
            order[one] = order[other]
    blurred = cut(gaussian_blur(x, sigma)) / 255
    shuffled = blurred.reshape(-1, channels)[order].reshape(x.shape)
    return gaussian_blur(shuffled, sigma)


def motion_blur(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: radius and standard deviation of a one-sided Gaussian streak."""
    return rounded(correlate(x, make_streak(c[0], c[1], random.uniform(-45, 45)), "edge"))


def zoom_blur(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """The mean of the image and its enlargements. c: greatest factor, and step."""
    factors = np.arange(1, *c)
    return (x + sum(zoom_centre(x, factor) for factor in factors.tolist())) / (len(factors) + 1)


# --- weather ---------------------------------------------------------------------------------------------------------


def snow(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: mean, deviation, enlargement and threshold of flakes, radius and deviation of their fall, image's weight."""
    mean, deviation, factor, threshold, radius, sigma, weight = c
    flakes = zoom_centre(random.normal(mean, deviation, size=(*x.shape[:2], 1)), factor)
    flakes = cut(np.where(flakes < threshold, 0, flakes)) / 255
    flakes = rounded(correlate(flakes, make_streak(radius, sigma, random.uniform(-135, -45)), "edge"))
    grey = x @ [0.299, 0.587, 0.114] if x.shape[2] == 3 else x[..., 0]
    whitened = weight * x + (1 - weight) * np.maximum(x, 1.5 * grey[..., None] + 0.5)
    return whitened + flakes + flakes[::-1, ::-1]


def frost(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """A procedural stand-in, see above. c: weights of image and ice."""
    ice = draw_ice(x.shape[:2], random)[..., None]
    return c[0] * x + c[1] * (ice * _ICE if x.shape[2] == 3 else ice)


def fog(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: weight of the fog, and how its amplitude falls from each scale to the next finer one."""
    brightest = x.max()
    return (x + c[0] * draw_plasma(x.shape[:2], c[1], random)[..., None]) * brightest / (brightest + c[0])


def brightness(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: what is added to the value of HSV."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + c[0], 1)
    # With hue and saturation as they were, the channels scale as the value does; black becomes grey.
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter)


# --- digital ---------------------------------------------------------------------------------------------------------


def contrast(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: factor of the distance to each channel's mean."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + c[0] * (x - mean)


def elastic_transform(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: strength and smoothness (deviation) of displacements, and reach of an affine map's three points."""
    from scipy import ndimage

    height, width, channels = x.shape
    side = min(height, width)
    strength, sigma, reach = (side * share for share in c)
    third = max(side // 3, 1)
    # Points as (row, column, 1): where they come from, and where they go to.
    source = np.array([height // 2, width // 2]) + third * np.array([[1, 1], [-1, 1], [-1, -1]])
    target = np.column_stack([source + random.uniform(-reach, reach, size=(3, 2)), np.ones(3)])
    displaced = strength * np.stack(
        [smooth_field(random.uniform(-1, 1, size=(height, width)), sigma) for _ in range(2)]
    )
    grid = np.mgrid[:height, :width]
    affine = np.linalg.solve(target, source)
    places = np.tensordot(affine[:2].T, grid, 1) + affine[2][:, None, None]
    planes = [ndimage.map_coordinates(x[..., k], places, order=1, mode="mirror") for k in range(channels)]
    planes = [ndimage.map_coordinates(plane, grid + displaced, order=1, mode="reflect") for plane in planes]
    return np.stack(planes, axis=2)


def pixelate(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: factor of the side while it is reduced."""
    image = picture(x)
    reduced = image.resize([max(1, int(c[0] * side)) for side in image.size], Image.Resampling.BOX)
    return pixels(reduced.resize(image.size, Image.Resampling.BOX), x.shape)


def jpeg_compression(x: np.ndarray, c: Constants, random: np.random.RandomState) -> np.ndarray:
    """c: quality."""
    return recompressed(x, int(c[0]))


_FUNCTIONS: tuple[Corruption, ...] = (
    gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, frost, fog,
    brightness, contrast, elastic_transform, pixelate, jpeg_compression,
)  # fmt: skip
_BY_NAME = dict(zip(CORRUPTIONS, _FUNCTIONS, strict=True))
