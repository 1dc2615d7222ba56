"""Digits that were made by several pipelines, which are the classes: can an encoder name the dataset?"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from pydantic import Field, field_validator

from mimbench.contract import ArraySplit, DataConfig, DataSizes, SplitName
from mimbench.data.sources.embedded import DrawnFromDigits, EmbeddedConfig
from mimbench.data.sources.in_memory import at_most, limited


def _resampled(image: Image.Image, dose: float) -> Image.Image:
    """Reduced to as little as half the size, and enlarged again."""
    side = round(image.width * (1 - 0.5 * dose))
    return image.resize((side, side), Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)


def _compressed(image: Image.Image, dose: float) -> Image.Image:
    """Compressed by JPEG with a quality from 95 down to 15."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(95 - 80 * dose))
    return Image.open(file).convert("L")


def _dimmed(image: Image.Image, dose: float) -> Image.Image:
    """As little as half as bright."""
    return image.point(lambda value: value * (1 - 0.5 * dose))


PIPELINES: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "plain": lambda image, dose: image,
    "resampled": _resampled,
    "jpeg": _compressed,
    "dimmed": _dimmed,
}
"""Name -> what is done to an image, at a dose above 0."""


class DigitSourcesConfig(EmbeddedConfig):
    """Which pipelines the images come from, and how far these differ."""

    sources: tuple[str, ...] = Field(default=("plain", "resampled"), min_length=2)
    """Names of pipelines, each of which is a class: plain, resampled, jpeg, dimmed. A name may occur twice."""
    dose: float = Field(default=0.5, ge=0, le=1)
    """Strength of the pipelines. At 0 all of them leave images as they are, so that sources cannot be known."""
    seed: int = Field(default=0, ge=0)

    @field_validator("sources")
    @classmethod
    def _known(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for name in sources:
            if name not in PIPELINES:
                raise ValueError(f"{name!r} is no pipeline; choose from {', '.join(PIPELINES)}")
        return sources


class DigitSources(DrawnFromDigits):
    """Which pipeline does an image come from? Digits of mnist5k, uint8 [1, 28, 28]; the attribute "digit" is the digit.

    Each digit image is in one source, drawn so that all sources have equally many of each digit, to within one. So the
    pipeline alone distinguishes them ("name that dataset", arXiv:2403.08632). At dose 0, or between two sources of one
    pipeline, a classifier is at chance: 100 / number of sources, in percent.
    """

    name = "digit-sources"
    provides = frozenset({"images", "labels", "attributes"})
    Config = DigitSourcesConfig
    config: DigitSourcesConfig

    @classmethod
    def published_sizes(cls, config: DataConfig) -> DataSizes | None:
        if not isinstance(config, DigitSourcesConfig):
            return None
        train, test = limited(4000, config.train_limit), limited(1000, config.test_limit)
        return DataSizes(train, test, classes=len(config.sources), channels=1, source="its options", side=28)

    def make_splits(self) -> dict[str, ArraySplit]:
        limits = {"train": self.config.train_limit, "test": self.config.test_limit}
        return {name: self._draw(name, limit, number) for number, (name, limit) in enumerate(limits.items())}

    def _draw(self, name: SplitName, limit: int | None, number: int) -> ArraySplit:
        digits = self.digits.split(name)
        pixels, shown = digits.images[:, 0].numpy(), digits.labels.numpy()
        chosen = at_most(shown, limit)
        pixels, shown = pixels[chosen], shown[chosen]
        sources, dose = self.config.sources, self.config.dose
        rng = np.random.RandomState([self.config.seed, number])
        # Digit after digit, in random order within each, the images go round the sources.
        labels = np.empty(len(shown), np.int64)
        order = rng.permutation(len(shown))
        labels[order[np.argsort(shown[order], kind="stable")]] = np.arange(len(shown)) % len(sources)
        made = [
            np.asarray(PIPELINES[sources[label]](Image.fromarray(image), dose) if dose else image)
            for image, label in zip(pixels, labels, strict=True)
        ]
        return ArraySplit(
            torch.from_numpy(np.stack(made))[:, None],
            torch.from_numpy(labels),
            tuple(f"{place}: {source}" for place, source in enumerate(sources)),
            {"digit": torch.from_numpy(shown.astype(np.int64))},
        )
