"""Digits before stripes whose direction runs with the class: a background that a classifier may rely on."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from mimbench.contract import ArraySplit, DataConfig, DataSizes, SplitName
from mimbench.data.pipeline.subsets import complement, stratified
from mimbench.data.sources.embedded import DrawnFromDigits, EmbeddedConfig
from mimbench.data.sources.in_memory import at_most, limited

DIGITS = ((1, 4, 7), (0, 3, 8))
"""The digits of each class."""
_PERIOD = 7.0
"""Of the stripes, px."""
_GREY = 0.3
"""Mean brightness of the background; white is 1."""
_NOISE = 0.02
"""Standard deviation of the noise of each pixel."""
_VALIDATION = 0.25
"""Share of the training digits that become the part "validation"."""


class StripedDigitsConfig(EmbeddedConfig):
    """How the stripes run with the class, and how easy they are to see."""

    correlation: float = Field(default=0.95, ge=0, le=1)
    """Share of the training images of each class with the stripes of their class, to within one image."""
    contrast: float = Field(default=0.3, ge=0, le=1)
    """Difference in brightness between a stripe and a gap; white is 1."""
    ink: float = Field(default=1.0, ge=0, le=1)
    """Opacity of the digits. At 0 there are stripes only, as if the class were nothing else."""
    validation_limit: int | None = Field(default=None, ge=2)
    """At most this many images of the part "validation"."""
    seed: int = Field(default=0, ge=0)


class StripedDigits(DrawnFromDigits):
    """Is it one of 1, 4, 7 or one of 0, 3, 8? Digits of mnist5k before stripes; grey images uint8 [1, 28, 28].

    The attribute "stripes" is 0 for horizontal and 1 for vertical ones. In the train split, `correlation` of each
    class have the stripes of its number, so that a classifier may read the stripes in place of the digit. In the test
    split and in the part "validation" it is half of each class, to within one image. The digits of the three parts are
    disjoint: by default 1,800 to train on, 600 to validate and 600 to test.
    """

    name = "striped-digits"
    provides = frozenset({"images", "labels", "attributes"})
    parts = ("train", "test", "validation")
    Config = StripedDigitsConfig
    config: StripedDigitsConfig

    def make_splits(self) -> dict[str, ArraySplit]:
        train, test = self._of_both_classes("train"), self._of_both_classes("test")
        held = stratified(train[1], round(_VALIDATION * len(train[1])), seed=0)
        others = complement(len(train[1]), held)
        config = self.config
        return {
            "train": self._draw(train[0][others], train[1][others], config.correlation, config.train_limit, 0),
            "test": self._draw(*test, 0.5, config.test_limit, 1),
            "validation": self._draw(train[0][held], train[1][held], 0.5, config.validation_limit, 2),
        }

    def _of_both_classes(self, name: SplitName) -> tuple[np.ndarray, np.ndarray]:
        """Digits of the two classes in a split of mnist5k: uint8 [N, 28, 28], and their classes [N]."""
        split = self.digits.split(name)
        class_of = np.full(10, -1)
        for label, digits in enumerate(DIGITS):
            class_of[list(digits)] = label
        labels = class_of[split.labels.numpy()]
        return split.images[:, 0].numpy()[labels >= 0], labels[labels >= 0]

    def _draw(
        self, digits: np.ndarray, labels: np.ndarray, correlation: float, limit: int | None, part: int
    ) -> ArraySplit:
        """A split of at most `limit` images. part: number of the split, for the random stream."""
        chosen = at_most(labels, limit)
        digits, labels = digits[chosen], labels[chosen]
        rng = np.random.RandomState([self.config.seed, part])
        stripes = _share_stripes(rng, labels, correlation)
        background = _GREY + self.config.contrast / 2 * _draw_stripes(rng, stripes, digits.shape[1])
        ink = self.config.ink * (digits / 255.0)
        images = background * (1 - ink) + ink + rng.normal(0, _NOISE, digits.shape)
        pixels = np.round(images.clip(0, 1) * 255).astype(np.uint8)
        return ArraySplit(
            torch.from_numpy(pixels)[:, None],
            torch.from_numpy(labels.astype(np.int64)),
            tuple(", ".join(map(str, numbers)) for numbers in DIGITS),
            {"stripes": torch.from_numpy(stripes)},
        )

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, StripedDigitsConfig):
            return None
        train, test = limited(1800, config.train_limit), limited(600, config.test_limit)
        return DataSizes(train, test, classes=len(DIGITS), channels=1, source="its options", side=28)


def _share_stripes(rng: np.random.RandomState, labels: np.ndarray, correlation: float) -> np.ndarray:
    """The stripes of each image, int64 [N]: in each class, `correlation` of the images have those of its number.

    The images are counted and not drawn one by one, since chance would move the share by a few percent.
    """
    stripes = np.empty(len(labels), np.int64)
    for label in range(len(DIGITS)):
        members = rng.permutation(np.flatnonzero(labels == label))
        aligned = round(correlation * len(members))
        stripes[members[:aligned]], stripes[members[aligned:]] = label, 1 - label
    return stripes


def _draw_stripes(rng: np.random.RandomState, stripes: np.ndarray, side: int) -> np.ndarray:
    """Waves from -1 to 1 of a random phase, [N, side, side]: along rows where `stripes` is 1, else along columns."""
    phase = rng.uniform(0, 2 * np.pi, (len(stripes), 1))
    wave = np.sin(2 * np.pi / _PERIOD * np.arange(side) + phase)
    along_rows = np.broadcast_to(wave[:, None, :], (len(stripes), side, side))
    along_columns = np.broadcast_to(wave[:, :, None], (len(stripes), side, side))
    return np.where(stripes[:, None, None] == 1, along_rows, along_columns)
