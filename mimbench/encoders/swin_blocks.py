"""Swin blocks of timm on grids of any size, and which tokens attend to each other in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks, run_block
from mimbench.encoders.windows import partition, unpartition

if TYPE_CHECKING:  # timm takes longer to import than torch, and only building a Swin needs it
    from timm.models.swin_transformer import SwinTransformerBlock


def shifted_window_block(
    block: SwinTransformerBlock, x: Tensor, mixed: Tensor | None = None, *, recompute: bool = False
) -> Tensor:
    """Run timm's `block` on a grid [B, h, w, D] of any size.

    On another grid than it was built for, the block keeps its window, and hence its position table; it shifts where
    the grid is larger than the window. Padding, up to whole windows, is hidden from attention.

    Args:
        mixed: bool [B or 1, h, w]; a token attends to those with its own value only.
        recompute: do not keep activations for the backward pass.
    """
    grid = tuple(x.shape[1:3])
    window, shift = block.attn.window_size, block_shift(block, grid)
    whole = all(side % length == 0 for side, length in zip(grid, window, strict=True))
    if whole and mixed is None and grid == tuple(block.input_resolution):
        return run_block(block, x, recompute=recompute)
    down, right = (-side % length for side, length in zip(grid, window, strict=True))
    mask = None if whole and not any(shift) else window_mask(grid, window, shift, x)
    if mixed is not None:
        between = mixed_mask(F.pad(mixed, (0, right, 0, down)), window, shift, x)
        mask = between if mask is None else between + mask.repeat(len(between) // len(mask), 1, 1)
    return run_block(block, x, mask, tuple(shift), by=_shifted_block, recompute=recompute)


def _shifted_block(block: Any, x: Tensor, mask: Tensor | None, shift: tuple[int, int]) -> Tensor:
    """mask: [windows, N, N], added to the attention of each window of the grid, padded and moved by `shift`."""
    grid, window = tuple(x.shape[1:3]), block.attn.window_size
    down, right = (-side % length for side, length in zip(grid, window, strict=True))
    y = F.pad(block.norm1(x), (0, 0, 0, right, 0, down))
    padded = tuple(y.shape[1:3])
    parts, _ = partition(y.roll((-shift[0], -shift[1]), (1, 2)), window)
    y = unpartition(block.attn(parts, mask=mask), window, padded, padded).roll(shift, (1, 2))
    x = x + block.drop_path1(y[:, : grid[0], : grid[1]])
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def window_mask(grid: tuple[int, ...], window: tuple[int, ...], shift: Sequence[int], like: Tensor) -> Tensor:
    """[windows, N, N], 0 if one token may attend to another, else -100; device and dtype of `like`.

    Tokens that only the cyclic shift brings together do not attend to each other, and none attends to the padding.
    """
    regions = []
    for side, length, moved in zip(grid, window, shift, strict=True):
        padded = side + -side % length
        place = torch.arange(padded, device=like.device)
        wrapped = place >= padded - moved
        regions.append(wrapped + 2 * ((place + moved) % padded >= side).long())
    region = (4 * regions[0][:, None] + regions[1]).to(like.dtype)
    parts, _ = partition(region[None, :, :, None], window)
    return (parts != parts.transpose(1, 2)).to(like.dtype) * -100.0


def mixed_mask(mixed: Tensor, window: tuple[int, ...], shift: Sequence[int], like: Tensor) -> Tensor:
    """[B * windows, N, N], 0 if two tokens have the same value in `mixed`, else minus infinity; dtype of `like`.

    mixed: bool [B, h, w], whole windows.
    """
    parts, _ = partition(mixed.roll((-shift[0], -shift[1]), (1, 2)).unsqueeze(-1), window)
    between = parts != parts.transpose(1, 2)
    return torch.zeros(between.shape, dtype=like.dtype, device=like.device).masked_fill(between, -torch.inf)


def build_blocks(
    depth: int, *, dim: int, grid: tuple[int, int], num_heads: int, window: int, mlp_ratio: float = 4.0
) -> nn.ModuleList:
    """`depth` Swin blocks of one stage for `shifted_window_block`; every second one shifts its windows."""
    from timm.models.swin_transformer import SwinTransformerBlock

    from mimbench.encoders.biased_attention import with_forms

    blocks = nn.ModuleList(
        SwinTransformerBlock(
            dim=dim,
            input_resolution=grid,
            num_heads=num_heads,
            window_size=window,
            shift_size=window // 2 if index % 2 else 0,
            mlp_ratio=mlp_ratio,
        )
        for index in range(depth)
    )
    mark_blocks(with_forms(blocks))
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return blocks


def block_shift(block: Any, grid: Sequence[int]) -> list[int]:
    """How far timm's Swin `block` shifts its windows on a grid: half a window where the grid is larger than one."""
    if not any(block.target_shift_size):
        return [0] * len(grid)
    return [length // 2 if side > length else 0 for side, length in zip(grid, block.attn.window_size, strict=True)]
