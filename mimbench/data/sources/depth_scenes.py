"""Scenes whose depth is known by construction and shows in the picture: digits at distances, near ones in front."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mimbench.contract import DataConfig, Dataset, DataSizes, SplitName
from mimbench.data.files.built_folder import built_folder
from mimbench.data.files.cache import ensure_writable
from mimbench.data.sources.depth_maps import DepthMapsSplit, DepthPair
from mimbench.data.sources.digit_drawing import COMPOSER_VERSION, MNIST_SIDE, Glyphs, compose_in_order
from mimbench.data.sources.embedded import EmbeddedConfig, MNIST5k

_PER_METRE = 1000
"""Depth files hold millimetres, as those of NYUv2."""
_BEYOND = 1.25
"""How far `max_depth` lies beyond the greatest distance, as a factor."""


class DepthScenesConfig(DataConfig):
    """What the scenes look like."""

    train_scenes: int = Field(default=800, ge=1)
    test_scenes: int = Field(default=200, ge=1)
    size: int = Field(default=96, ge=32)
    """Side of a scene, px."""
    digits: tuple[int, int] = (3, 8)
    """Least and most digits in a scene. Fewer appear if there is no room."""
    distance: tuple[float, float] = (1.0, 4.0)
    """Least and greatest distance of a digit, m; drawn so that its logarithm is uniform."""
    scale: float = Field(default=2.0, gt=0)
    """Size of a digit at the least distance, relative to MNIST's 28 px. Twice as far away it is half as large."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> DepthScenesConfig:
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(f"digits must be two rising numbers from 1, not {self.digits}")
        if not 0.1 <= self.distance[0] < self.distance[1] <= 60:
            raise ValueError(f"distance must be two rising numbers from 0.1 to 60 m, not {self.distance}")
        if self.scale * MNIST_SIDE > self.size:
            raise ValueError(f"digits of scale {self.scale:g} do not fit into {self.size} px")
        if self.scale * self.distance[0] / self.distance[1] < 0.25:
            raise ValueError(f"digits at {self.distance[1]:g} m would be smaller than a quarter of MNIST's")
        return self


class DepthScenes(Dataset):
    """mnist5k's digits over clutter, each at a distance. Only pixels of digits have a depth.

    Two things show the distance: all digits are equally large, so that a far one is small; and near digits cover far
    ones. Brightness, position and class are drawn without regard to it. The clutter is flat and has no depth, as pixels
    without a reading in NYUv2. Train scenes are composed of mnist5k's training digits, test scenes of its test digits.
    Built on first use into the cache, as 8-bit grey PNGs and 16-bit PNGs of millimetres.
    """

    name = "depth-scenes"
    provides = frozenset({"depth"})
    Config = DepthScenesConfig
    config: DepthScenesConfig
    channels = 1

    def __init__(self, config: DepthScenesConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self._digits = MNIST5k(EmbeddedConfig(), cache)

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, DepthScenesConfig):
            return None
        counts = config.train_scenes, config.test_scenes
        return DataSizes(*counts, classes=1, channels=1, source="its options", side=config.size)

    def split(self, name: SplitName) -> DepthMapsSplit:
        count = self.config.train_scenes if name == "train" else self.config.test_scenes
        side = self.config.size
        pairs = [DepthPair(f"{name}/{n:06d}.png", f"{name}/{n:06d}-depth.png", (side, side)) for n in range(count)]
        return DepthMapsSplit(self._folder, pairs, per_metre=_PER_METRE, max_depth=_BEYOND * self.config.distance[1])

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        shaping = json.dumps(self.config.shaping(), sort_keys=True)
        parts = ("depth-scenes", COMPOSER_VERSION, shaping, self._digits.fingerprint())
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @cached_property
    def _folder(self) -> Path:
        """Where the scenes lie, built and whole."""
        folder = ensure_writable(self.cache) / f"{self.name}-{self.fingerprint()[:16]}"
        return built_folder(folder, self._build, f"composing {self.name}")

    def _build(self, folder: Path) -> None:
        counts = {"train": self.config.train_scenes, "test": self.config.test_scenes}
        for number, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            digits = self._digits.split("train" if name == "train" else "test")
            glyphs = Glyphs.cut(digits.images[:, 0].numpy(), digits.labels.numpy())
            for scene in range(count):
                pixels, millimetres = self._compose(glyphs, number, scene)
                Image.fromarray(pixels).save(folder / name / f"{scene:06d}.png", compress_level=1)
                Image.fromarray(millimetres).save(folder / name / f"{scene:06d}-depth.png", compress_level=1)

    def _compose(self, glyphs: Glyphs, split: int, scene: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [size, size], and uint16 [size, size] in mm."""
        config = self.config
        # Each scene has its own stream, so that it does not depend on how many there are.
        rng = np.random.RandomState([config.seed, split, scene])
        count = rng.randint(config.digits[0], config.digits[1] + 1)
        nearest, farthest = np.log(config.distance)
        distances = np.sort(np.exp(rng.uniform(nearest, farthest, count)))[::-1]
        scales = config.scale * config.distance[0] / distances
        composed, placed = compose_in_order(rng, glyphs, config.size, scales.tolist())
        millimetres = np.zeros((config.size, config.size), np.uint16)
        for position, instance in zip(placed, composed.instances, strict=True):
            millimetres[instance.visible] = round(_PER_METRE * distances[position])
        return composed.pixels, millimetres
