"""The inverse Swin: a decoder whose Swin stages double the grid, in place of halving it (SimMIM, table 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.encoders.swin_blocks import build_blocks, shifted_window_block
from mimbench.errors import InputError


class PatchSplitting(nn.Module):
    """Patch merging backwards: [B, h, w, D] -> [B, 2h, 2w, D / 2]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expansion = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)
        nn.init.trunc_normal_(self.expansion.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.expansion(x).permute(0, 3, 1, 2), 2)
        return self.norm(x.permute(0, 2, 3, 1))


class InverseSwin(nn.Module):
    """Swin stages on a map [B, D, h, w]; between two, the grid doubles and the channels halve.

    Attributes:
        out_dim: channels of the result.
        upsample: its side over that of the input, 2 ** (stages - 1).
    """

    def __init__(self, dim: int, grid: int, depths: Sequence[int], *, window: int) -> None:
        """Raises InputError if `dim` cannot be halved between all stages of `depths`."""
        super().__init__()
        self.upsample = 2 ** (len(depths) - 1)
        if dim % self.upsample:
            raise InputError(f"{dim} channels cannot be halved {len(depths) - 1} times, between {len(depths)} stages")
        self.out_dim = dim // self.upsample
        self.splits, self.stages = nn.ModuleList(), nn.ModuleList()
        for stage, depth in enumerate(depths):
            width, side = dim // 2**stage, grid * 2**stage
            self.splits.append(PatchSplitting(2 * width) if stage else nn.Identity())
            heads = math.gcd(max(1, width // 32), width)
            self.stages.append(build_blocks(depth, dim=width, grid=(side, side), num_heads=heads, window=window))
        self.norm = nn.LayerNorm(self.out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, out_dim, h * upsample, w * upsample]."""
        x = x.permute(0, 2, 3, 1)
        for split, stage in zip(self.splits, self.stages, strict=True):
            x = split(x)
            for block in stage.children():
                x = shifted_window_block(block, x)
        return self.norm(x).permute(0, 3, 1, 2)
