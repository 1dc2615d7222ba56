"""Windowed attention for dense prediction at high resolution (ViTDet, arXiv:2203.16527)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mimbench.errors import InputError

Grid = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Blocks attend within `size` x `size` tokens, but for `global_blocks`, which see the whole grid."""

    size: int
    global_blocks: tuple[int, ...]

    @staticmethod
    def checked(size: int, global_blocks: tuple[int, ...], depth: int) -> Windows:
        """Raises InputError for a window below 1 token or a block that does not exist."""
        if size < 1:
            raise InputError(f"a window of {size} tokens holds nothing; use 0 for global attention")
        outside = [block for block in global_blocks if not 0 <= block < depth]
        if outside:
            raise InputError(f"global_blocks {outside} are outside this encoder's {depth} blocks")
        return Windows(size, tuple(global_blocks))


def partition(x: Tensor, size: Grid) -> tuple[Tensor, Grid]:
    """[B, h, w, D] -> windows [B * n, size[0] * size[1], D] and the grid after zero padding."""
    batch, height, width, dim = x.shape
    rows, columns = -(-height // size[0]), -(-width // size[1])
    padded = (rows * size[0], columns * size[1])
    if padded != (height, width):
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
    x = x.reshape(batch, rows, size[0], columns, size[1], dim).transpose(2, 3)
    return x.reshape(batch * rows * columns, size[0] * size[1], dim), padded


def unpartition(windows: Tensor, size: Grid, padded: Grid, grid: Grid) -> Tensor:
    """The inverse of `partition`: back to [B, h, w, D], padding removed."""
    rows, columns = padded[0] // size[0], padded[1] // size[1]
    x = windows.reshape(-1, rows, columns, size[0], size[1], windows.shape[-1]).transpose(2, 3)
    return x.reshape(-1, *padded, windows.shape[-1])[:, : grid[0], : grid[1]]
