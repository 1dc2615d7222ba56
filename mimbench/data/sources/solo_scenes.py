"""One digit among clutter as bright as it, its pixels known: data on which an explanation can be right or wrong."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import torch
from pydantic import Field, model_validator

from mimbench.contract import ArraySplit, DataConfig, DataSizes, SplitName
from mimbench.data.pipeline.subsets import array_fingerprint
from mimbench.data.sources.digit_drawing import INK, MNIST_SIDE, Glyphs, placed, resized
from mimbench.data.sources.embedded import DrawnFromDigits

_GREY = 0.5
"""Brightness of the ground; white is 1."""
_CONTRAST = (0.3, 0.45)
"""Least and greatest difference in brightness from the ground, of digits and of clutter."""
_NOISE = 0.03
"""Standard deviation of the noise of each pixel."""
_EDGES = 0.35
"""Both parameters of the beta distribution of the digit's place; below 1, it lies at the borders more often."""
_PIECE = (4, 7)
"""Least and greatest side of a piece of a digit, px."""
_SPOT = (4.0, 8.0)
"""Least and greatest extent of a spot, px."""
_SPOTS, _STRIPED = 0.4, 0.2
"""Shares of plain and of striped spots in the clutter; the rest are pieces of digits.

Strokes of a digit lie closer together than pieces do, so that pieces alone leave the digit the brightest place of a
blurred image. Spots are as bright, and without gaps; stripes have more edges than a digit.
"""


class SoloScenesConfig(DataConfig):
    """What the scenes look like."""

    digits: tuple[int, ...] = Field(default=(0, 1), min_length=2)
    """The digits that scenes show, each of which is a class."""
    train_scenes: int = Field(default=3000, ge=1)
    test_scenes: int = Field(default=400, ge=1)
    size: int = Field(default=28, ge=20)
    """Side of a scene, px."""
    scale: tuple[float, float] = (0.55, 0.7)
    """Least and greatest size of the digit, relative to MNIST's 28 px."""
    clutter: int = Field(default=12, ge=0)
    """Spots and pieces of digits per scene."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> SoloScenesConfig:
        if not 0.25 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two rising numbers from 0.25, not {self.scale}")
        if sorted(set(self.digits)) != list(self.digits) or not set(self.digits) <= set(range(10)):
            raise ValueError(f"digits must be rising numbers from 0 to 9, not {self.digits}")
        if self.scale[1] * MNIST_SIDE > self.size:
            raise ValueError(f"digits of scale {self.scale[1]:g} do not fit into {self.size} px")
        return self


class SoloScenes(DrawnFromDigits):
    """Which digit is it? One digit of mnist5k among spots and pieces of digits; grey images uint8 [1, 28, 28].

    Digit and clutter are brighter or darker than the ground, with equal probability, and differ from it by as much. The
    digit lies near the borders more often than in the middle. So the place does not give it away, nor does brightness,
    of pixels or averaged over up to 7 px. `object_masks` of a split says which pixels are the digit's. Test scenes are
    made of mnist5k's test digits alone.
    """

    name = "solo-scenes"
    provides = frozenset({"images", "labels", "object-masks"})
    Config = SoloScenesConfig
    config: SoloScenesConfig

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, SoloScenesConfig):
            return None
        counts = config.train_scenes, config.test_scenes
        return DataSizes(*counts, classes=len(config.digits), channels=1, source="its options", side=config.size)

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(array_fingerprint(self._splits).encode())
        for name in self.parts:
            masks = self._splits[name].object_masks
            assert masks is not None
            digest.update(np.packbits(masks.numpy()).tobytes())
        return digest.hexdigest()

    def make_splits(self) -> dict[str, ArraySplit]:
        counts = {"train": self.config.train_scenes, "test": self.config.test_scenes}
        return {name: self._draw(name, count, number) for number, (name, count) in enumerate(counts.items())}

    def _draw(self, name: SplitName, count: int, number: int) -> ArraySplit:
        digits = self.digits.split(name)
        images, labels = digits.images[:, 0].numpy(), digits.labels.numpy()
        pieces = Glyphs.cut(images, labels)
        shown = Glyphs.cut(images[np.isin(labels, self.config.digits)], labels[np.isin(labels, self.config.digits)])
        # Each scene has its own stream, so that it does not depend on how many there are.
        streams = (np.random.RandomState([self.config.seed, number, scene]) for scene in range(count))
        scenes = [self._compose(rng, shown, pieces) for rng in streams]
        pixels, masks, labels = zip(*scenes, strict=True)
        return ArraySplit(
            torch.from_numpy(np.stack(pixels))[:, None],
            torch.tensor(labels),
            tuple(map(str, self.config.digits)),
            object_masks=torch.from_numpy(np.stack(masks)),
        )

    def _compose(self, rng: np.random.RandomState, shown: Glyphs, pieces: Glyphs) -> tuple[np.ndarray, np.ndarray, int]:
        """Pixels uint8 [size, size], the digit's pixels bool [size, size], and its class."""
        size = self.config.size
        canvas = np.full((size, size), _GREY)
        for _ in range(self.config.clutter):
            drawn = rng.uniform()
            if drawn < _SPOTS + _STRIPED:
                piece = _draw_spot(rng, is_striped=drawn >= _SPOTS)
            else:
                piece = _cut_piece(rng, self._scaled(rng, pieces.draw(rng)[0]))
            _paint(rng, canvas, _at(piece, rng.uniform(-0.15, 1, 2) * size, size))
        shape, digit = shown.draw(rng)
        opacity = self._scaled(rng, shape)
        layer = _at(opacity, rng.beta(_EDGES, _EDGES, 2) * (size - np.array(opacity.shape)), size)
        _paint(rng, canvas, layer)
        canvas += rng.normal(0, _NOISE, canvas.shape)
        return np.round(canvas.clip(0, 1) * 255).astype(np.uint8), layer > INK, self.config.digits.index(digit)

    def _scaled(self, rng: np.random.RandomState, shape: np.ndarray) -> np.ndarray:
        """A digit at a random scale: opacity [h, w]."""
        factor = rng.uniform(*self.config.scale)
        height, width = (max(2, round(extent * factor)) for extent in shape.shape)
        return resized(shape / 255, height, width).clip(0, 1)


def _cut_piece(rng: np.random.RandomState, opacity: np.ndarray) -> np.ndarray:
    """A part of a digit."""
    height, width = (min(extent, rng.randint(_PIECE[0], _PIECE[1] + 1)) for extent in opacity.shape)
    top, left = (rng.randint(0, extent - part + 1) for extent, part in zip(opacity.shape, (height, width), strict=True))
    return opacity[top : top + height, left : left + width]


def _draw_spot(rng: np.random.RandomState, *, is_striped: bool) -> np.ndarray:
    """A disc or ellipse with soft edges; striped: every second row or column of it."""
    extents = rng.uniform(*_SPOT, 2)
    side = int(np.ceil(extents.max())) + 1
    axes = [(np.arange(side) - (side - 1) / 2) / (extent / 2) for extent in extents]
    distance = np.hypot(axes[0][:, None], axes[1][None, :])
    spot = ((1 - distance) * extents.min() / 2 + 0.5).clip(0, 1)
    if is_striped:
        stripes = np.arange(side) % 2
        spot *= stripes[:, None] if rng.uniform() < 0.5 else stripes[None, :]
    return spot


def _at(opacity: np.ndarray, corner: np.ndarray, size: int) -> np.ndarray:
    """The layer [size, size] with the upper left corner of `opacity` there, px."""
    top, left = (round(float(value)) for value in corner)
    return placed(opacity, top, left, size)


def _paint(rng: np.random.RandomState, canvas: np.ndarray, layer: np.ndarray) -> None:
    """Paint a layer of opacities brighter or darker than the ground."""
    difference = rng.uniform(*_CONTRAST) * rng.choice((-1, 1))
    canvas += layer * (_GREY + difference - canvas)
