"""A dataset of four channels: fields of crops in blue, green, red and near infrared, drawn from a seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field

from mimbench.api import ArraySplit, DataConfig, Dataset, SplitName

SPECTRA = {
    "water": (60, 50, 30, 10),
    "soil": (80, 100, 130, 150),
    "grass": (50, 90, 60, 190),
    "wheat": (70, 110, 90, 160),
    "shade": (50, 90, 60, 30),
}
"""Mean pixel values of each class. Grass and shade differ in the fourth band only."""


class BandsConfig(DataConfig):
    seed: int = 0
    train: int = Field(200, ge=1)
    test: int = Field(100, ge=1)
    side: int = Field(28, ge=4)
    """Side of an image, px."""


class Bands(Dataset):
    """Images of one class each, under light that varies from image to image and over the image."""

    name = "bands"
    Config = BandsConfig
    config: BandsConfig
    channels = 4

    def __init__(self, config: BandsConfig, cache: Path) -> None:
        super().__init__(config, cache)
        generator = torch.Generator().manual_seed(config.seed)
        self.splits = {"train": self.draw(config.train, generator), "test": self.draw(config.test, generator)}

    def draw(self, count: int, generator: torch.Generator) -> ArraySplit:
        side, classes = self.config.side, tuple(SPECTRA)
        labels = torch.randperm(count, generator=generator) % len(classes)
        light = 1 + 0.1 * torch.randn(count, 1, 1, 1, generator=generator)
        field = F.interpolate(torch.randn(count, 1, 4, 4, generator=generator), side, mode="bicubic")
        noise = 8 * torch.randn(count, self.channels, side, side, generator=generator)
        pixels = torch.tensor(list(SPECTRA.values()))[labels][:, :, None, None] * (light + 0.1 * field) + noise
        return ArraySplit(pixels.clamp(0, 255).to(torch.uint8), labels, classes)

    def split(self, name: SplitName) -> ArraySplit:
        return self.splits[name]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(split.images.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()
