"""Depth as PNG files of whole numbers, each next to its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mimbench.contract import DepthSplit, RunError
from mimbench.data.files.image_reading import MAX_PIXELS
from mimbench.data.sources.label_images import read_values
from mimbench.text import printable


@dataclass(frozen=True)
class DepthPair:
    """An image and its depth; names are relative to the root."""

    image: str
    depth: str
    shape: tuple[int, int]
    """Height and width of both, px."""


class DepthMapsSplit(DepthSplit):
    """Images with depth in PNG files."""

    def __init__(self, root: Path, pairs: Sequence[DepthPair], *, per_metre: float, max_depth: float) -> None:
        """per_metre: value of a pixel that is 1 m away."""
        self.root, self.pairs, self.per_metre, self.max_depth = root, pairs, per_metre, max_depth

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> Path:
        return self.root / self.pairs[index].image

    def shape(self, index: int) -> tuple[int, int]:
        return self.pairs[index].shape

    def depth(self, index: int) -> Tensor:
        path = self.root / self.pairs[index].depth
        height, width = self.shape(index)
        try:
            values = read_values(path, max(MAX_PIXELS, height * width))
        except Exception as error:  # Pillow raises nearly anything on a damaged file
            raise RunError(f"cannot read the depth {printable(path)}: {error}") from error
        depth = torch.from_numpy((values / self.per_metre).astype(np.float32))
        return torch.where(depth > self.max_depth, 0.0, depth)
