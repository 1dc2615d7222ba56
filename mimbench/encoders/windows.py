"""Windowed attention for dense prediction at high resolution (ViTDet, arXiv:2203.16527)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mimbench.errors import InputError

Grid = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Blocks attend within `size` x `size` tokens, except `global_blocks`, which see the whole grid."""

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


def windowed_block(block: Any, x: Tensor, bias: Tensor | tuple[Tensor, Tensor] | None, size: Grid) -> Tensor:
    """Run timm's ViT or Beit block on [B, h, w, D], attending within windows of `size`.

    As in ViTDet, padding is zeros after the norm, costs the MLP nothing, and a dropped path drops a whole image's.
    """
    from timm.models.vision_transformer_sam import Attention as PositionedAttention

    grid = tuple(x.shape[1:3])
    y, padded = partition(block.norm1(x), size)
    if isinstance(block.attn, PositionedAttention):
        y = block.attn(y.unflatten(1, size)).flatten(1, 2)
    else:
        y = block.attn(y, bias)
    x = x + block.drop_path1(_scaled(block, 1, unpartition(y, size, padded, grid)))
    return x + block.drop_path2(_scaled(block, 2, block.mlp(block.norm2(x))))


def add_positions(block: Any, size: Grid) -> None:
    """Give the attention of timm's ViT block learned relative positions within windows of `size`, zero at first.

    A row and a column table (MViTv2, arXiv:2112.01526), as ViTDet fine-tunes with.
    """
    from timm.models.vision_transformer_sam import Attention as PositionedAttention

    weight = block.attn.qkv.weight
    attention = PositionedAttention(
        weight.shape[1],
        block.attn.num_heads,
        qkv_bias=block.attn.qkv.bias is not None,
        attn_drop=block.attn.attn_drop.p,
        use_rel_pos=True,
        input_size=size,
        device=weight.device,
        dtype=weight.dtype,
    )
    attention.load_state_dict(block.attn.state_dict(), strict=False)
    block.attn = attention


def _scaled(block: Any, branch: int, x: Tensor) -> Tensor:
    """LayerScale, under either of timm's names for it."""
    if hasattr(block, f"ls{branch}"):
        return getattr(block, f"ls{branch}")(x)
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x
