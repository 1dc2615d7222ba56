"""A dataset of clips: a square moves over noise in one of four directions, drawn from a seed.

It leaves at one side and enters at the opposite one, so that a single frame shows nothing of the direction.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import ArraySplit, DataConfig, Dataset, ImageSplit, SplitName

DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
"""Rows and columns per frame, px."""
FRAMES, SIZE, SQUARE = 8, 16, 5


class MovingSquaresConfig(DataConfig):
    train: int = Field(240, ge=1)
    test: int = Field(120, ge=1)
    length: int = Field(FRAMES, ge=FRAMES)
    """Frames of each video. Of longer ones than 8 a clip is drawn in each epoch."""


class Videos(ImageSplit):
    """Videos [C, length, H, W] of which a clip is drawn for training, and the middle is evaluated."""

    def __init__(self, videos: Tensor, labels: Tensor) -> None:
        self.videos, self.labels, self.classes = videos, labels, tuple(DIRECTIONS)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.clip(index, (self.videos.shape[2] - FRAMES) // 2)

    def draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, int]:
        starts = self.videos.shape[2] - FRAMES + 1
        return self.clip(index, int(torch.randint(starts, (), generator=generator)))

    def clip(self, index: int, start: int) -> tuple[Tensor, int]:
        return self.videos[index, :, start : start + FRAMES], int(self.labels[index])


class MovingSquares(Dataset):
    """Grey clips of 8 frames, 16 x 16 px. The class is the direction."""

    name = "moving-squares"
    Config = MovingSquaresConfig
    config: MovingSquaresConfig
    channels = 1
    frames = FRAMES

    def __init__(self, config: MovingSquaresConfig, cache: Path) -> None:
        super().__init__(config, cache)
        generator = torch.Generator().manual_seed(0)
        self.splits = {"train": self.make(config.train, generator), "test": self.make(config.test, generator)}

    def make(self, count: int, generator: torch.Generator) -> ImageSplit:
        length = self.config.length
        labels = torch.randperm(count, generator=generator) % len(DIRECTIONS)
        place = torch.randint(SIZE, (count, 2, 1), generator=generator)
        moved = torch.tensor(list(DIRECTIONS.values()))[labels].unsqueeze(-1) * torch.arange(length)
        corner = ((place + moved) % SIZE).unsqueeze(-1)
        rows, columns = ((torch.arange(SIZE) - corner) % SIZE < SQUARE).unbind(1)
        inside = rows.unsqueeze(-1) & columns.unsqueeze(-2)
        noise = torch.randint(60, (count, length, SIZE, SIZE), generator=generator)
        videos = torch.where(inside, 255 - noise, noise).to(torch.uint8).unsqueeze(1)
        return ArraySplit(videos, labels, tuple(DIRECTIONS)) if length == FRAMES else Videos(videos, labels)

    def split(self, name: SplitName) -> ImageSplit:
        return self.splits[name]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split in self.splits.values():
            videos = split.images if isinstance(split, ArraySplit) else split.videos
            digest.update(videos.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()
