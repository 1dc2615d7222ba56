"""A dataset: squares and discs, drawn from a fixed seed."""

import hashlib
from pathlib import Path
from typing import ClassVar

import torch

from mimbench.api import ArraySplit, DataConfig, Dataset, SplitName

SIZE = 28
"""Side of an image, px."""
COUNTS = {"train": 200, "test": 100}


class ShapesConfig(DataConfig):
    radius: int = 6
    """Half the side of a square, and the radius of a disc, px."""


class Shapes(Dataset):
    """Grey images of 28 x 28 px with one bright square or disc each."""

    name = "shapes"
    Config = ShapesConfig
    config: ShapesConfig
    channels = 1
    waivers: ClassVar = {"splits_are_disjoint": "an image of one shape has few positions, so some images repeat"}

    def __init__(self, config: ShapesConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.splits = {name: self.draw(count, seed) for seed, (name, count) in enumerate(COUNTS.items())}

    def draw(self, count: int, seed: int) -> ArraySplit:
        """A split of `count` images. Even indices are squares, odd ones are discs."""
        generator = torch.Generator().manual_seed(seed)
        radius = self.config.radius
        labels = torch.arange(count) % 2
        images = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.uint8)
        axis = torch.arange(SIZE)
        for image, label in zip(images, labels, strict=True):
            row, column = torch.randint(radius, SIZE - radius, (2,), generator=generator)
            dy, dx = (axis - row).abs()[:, None], (axis - column).abs()[None, :]
            inside = dy.pow(2) + dx.pow(2) <= radius**2 if label else torch.maximum(dy, dx) <= radius
            image[0, inside] = 255
        return ArraySplit(images, labels, ("square", "disc"))

    def split(self, name: SplitName) -> ArraySplit:
        return self.splits[name]

    def fingerprint(self) -> str:
        """Equal content gives an equal digest, on every machine."""
        digest = hashlib.sha256()
        for split in self.splits.values():
            digest.update(split.images.numpy().tobytes() + split.labels.numpy().tobytes())
        return digest.hexdigest()
