"""Clips that need no download: a real digit moves over clutter, and the class is its motion."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator

from mimbench.contract import ArraySplit, DataConfig, DataSizes, SplitName
from mimbench.data.files.cache import ensure_writable, read_checked, write_checked
from mimbench.data.sources.clip_drawing import COMPOSER_VERSION, MOTIONS, ClipStyle, draw_clip
from mimbench.data.sources.embedded import DrawnFromDigits
from mimbench.leases import hold_lease


class MovingDigitsConfig(DataConfig):
    """What the clips look like."""

    train_clips: int = Field(default=4000, ge=1)
    test_clips: int = Field(default=1000, ge=1)
    frames: int = Field(default=8, ge=2)
    size: int = Field(default=32, ge=16)
    """Side of a clip, px."""
    step: float = Field(default=2.0, gt=0)
    """How far a digit goes per frame, px."""
    clutter: int = Field(default=3, ge=0)
    """Pieces of other digits in the background, which do not move."""
    noise: float = Field(default=0.04, ge=0, le=1)
    """Standard deviation of the noise that each frame gets; white is 1."""
    static_bias: float = Field(default=0.0, ge=0, le=1)
    """Share of the training clips whose digit shows the motion: 0 moves right, 1 left, and so on. In all other clips,
    and in the test split, the digit says nothing."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _shows_direction(self) -> MovingDigitsConfig:
        if 2 * self.step >= self.size:
            raise ValueError(f"step {self.step:g} px is half of size {self.size} px or more, so left equals right")
        return self


class MovingDigits(DrawnFromDigits):
    """One of mnist5k's digits moves, turns or changes its size over clutter; grey clips [1, T, size, size].

    Each frame of each class has the same distribution, so that only the order of frames shows the class. Classes come
    in four pairs that are each other's time reversal. Train clips show mnist5k's training digits, test clips its test
    digits. The digit is an attribute. Clips are composed on first use, and kept in the cache.
    """

    name = "moving-digits"
    provides = frozenset({"images", "labels", "attributes"})
    Config = MovingDigitsConfig
    config: MovingDigitsConfig

    def __init__(self, config: MovingDigitsConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.frames = config.frames

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, MovingDigitsConfig):
            return None
        counts = config.train_clips, config.test_clips
        return DataSizes(*counts, classes=len(MOTIONS), channels=1, source="its options", side=config.size)

    @cached_property
    def _fingerprint(self) -> str:
        shaping = json.dumps(self.config.shaping(), sort_keys=True)
        return hashlib.sha256(repr((COMPOSER_VERSION, shaping, self.digits.fingerprint())).encode()).hexdigest()

    def make_splits(self) -> dict[str, ArraySplit]:
        counts = {"train": self.config.train_clips, "test": self.config.test_clips}
        return {name: self._compose(number, name, count) for number, (name, count) in enumerate(counts.items())}

    def _compose(self, number: int, name: SplitName, count: int) -> ArraySplit:
        """The split, with clips from the cache if they are there. Classes take turns."""
        digits = self.digits.split(name)
        labels = np.arange(count) % len(MOTIONS)
        # Each clip has its own stream, so that it does not depend on how many there are.
        streams = [np.random.RandomState([self.config.seed, number, clip]) for clip in range(count)]
        shown = [
            self._choose_digit(rng, digits.labels.numpy(), label, name)
            for rng, label in zip(streams, labels.tolist(), strict=True)
        ]
        path = ensure_writable(self.cache) / f"{self.name}-{self.fingerprint()[:16]}-{name}.clips"
        shape = (count, 1, self.config.frames, self.config.size, self.config.size)
        with hold_lease(path, f"composing {self.name}"):
            content = read_checked(path)
            if content is None or len(content) != np.prod(shape):
                images = digits.images[:, 0].numpy()
                style = ClipStyle(**{key: getattr(self.config, key) for key in ClipStyle.__dataclass_fields__})
                motions = list(MOTIONS)
                drawn = [
                    draw_clip(rng, images[index], images, motions[label], style)
                    for rng, index, label in zip(streams, shown, labels, strict=True)
                ]
                content = np.stack(drawn).tobytes()
                write_checked(path, content)
        clips = torch.from_numpy(np.frombuffer(content, np.uint8).copy()).view(shape)
        attributes = {"digit": digits.labels[torch.tensor(shown)]}
        return ArraySplit(clips, torch.from_numpy(labels.astype(np.int64)), tuple(MOTIONS), attributes)

    def _choose_digit(self, rng: np.random.RandomState, digits: np.ndarray, label: int, name: SplitName) -> int:
        """Index of the digit that a clip shows."""
        is_tied = rng.uniform() < self.config.static_bias and name == "train"
        return int(rng.choice(np.flatnonzero(digits == label) if is_tied else len(digits)))
