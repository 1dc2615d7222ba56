"""A Swin that encodes only the visible cells of its last map (GreenMIM, arXiv:2205.13515).

A cell of the last map is a square of tokens of the first stage. All tokens of a cell are visible or none is, so patches
are merged within cells. Linear layers and norms run on visible tokens alone. For attention the visible tokens of each
window are padded to the largest number that any window has. That is exact, without GreenMIM's grouping of windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.compute.blocks import run_block, uncompiled
from mimbench.encoders.swin_blocks import block_shift
from mimbench.errors import InputError


@dataclass(frozen=True)
class VisibleWindows:
    """Which visible tokens attend to each other, in one block: G windows with at most M of them.

    Indices count the N visible tokens of an image, or of all images one after the other if their masks differ.
    """

    images: int
    """1 if all images have the same mask, else the number of images."""
    tokens: Tensor
    """int64 [G, M], a token per place; 0 at empty places."""
    filled: Tensor
    """bool [G, M]"""
    places: Tensor
    """int64 [images * N], the place of each token among G * M."""
    distances: Tensor
    """int64 [G, M, M], row of the relative-position table of each pair; 0 if a place is empty."""


@dataclass(frozen=True)
class VisibleGrid:
    """The visible tokens of one stage, `side` x `side` in each cell."""

    cells: Tensor
    """int64 [images, K] on the CPU, index of each visible cell in row-major order."""
    columns: int
    """Cells per row of the last map."""
    side: int

    def windows(self, size: Sequence[int], shift: Sequence[int], padded: Sequence[int]) -> VisibleWindows:
        """Windows of `size` tokens on a grid that is `padded` to whole windows and moved up and left by `shift`."""
        places, windows = [], torch.zeros_like(self.cells[0, 0])
        for axis, cell in enumerate((self.cells // self.columns, self.cells % self.columns)):
            inner = torch.arange(self.side, device=self.cells.device).view(
                (self.side, 1) if axis == 0 else (1, self.side)
            )
            place = (cell[:, :, None, None] * self.side + inner - shift[axis]) % padded[axis]
            place = place.expand(-1, -1, self.side, self.side).flatten()
            # What the shift moves around the border attends to itself only.
            wrapped = (place >= padded[axis] - shift[axis]).long()
            windows = (windows * (padded[axis] // size[axis]) + place // size[axis]) * 2 + wrapped
            places.append(place)
        images = len(self.cells)
        image = torch.arange(images, device=windows.device).repeat_interleave(len(places[0]) // images)
        return _by_window(images, image * (int(windows.max()) + 1) + windows, places, size)


def _by_window(images: int, windows: Tensor, places: list[Tensor], size: Sequence[int]) -> VisibleWindows:
    """windows: int64 [images * N], an arbitrary number per window. places: row and column of each token."""
    order = windows.argsort(stable=True)
    _, window, counts = windows[order].unique_consecutive(return_inverse=True, return_counts=True)
    slot = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[window]
    most = int(counts.max())
    tokens = order.new_zeros(len(counts), most)
    filled = torch.zeros_like(tokens, dtype=torch.bool)
    tokens[window, slot], filled[window, slot] = order, True
    of_token = torch.empty_like(order)
    of_token[order] = window * most + slot
    distances = torch.zeros_like(order[0])
    for place, length in zip(places, size, strict=True):
        at = place[tokens]
        distances = distances * (2 * length - 1) + at[:, :, None] - at[:, None, :] + length - 1
    distances = distances.masked_fill(~(filled[:, :, None] & filled[:, None, :]), 0)
    return VisibleWindows(images, tokens, filled, of_token, distances)


def encode_cells(stages: Iterable[Any], tokens: Tensor, keep: Tensor, *, recompute: bool = False) -> Tensor:
    """Run timm's Swin stages on the visible cells of a grid.

    Args:
        stages: each with `downsample` and `blocks`.
        tokens: [B, h, w, D].
        keep: int64 [B, K], or [1, K] for all images, on the device of `tokens` or on the CPU: indices of the visible
            cells of the last map, in any order.
        recompute: do not keep a block's activations for the backward pass.

    Returns:
        [B, K, D of the last stage], before the final norm.

    Raises:
        InputError: the grid does not consist of whole cells.
    """
    stages = list(stages)
    side, (height, width) = 2 ** (len(stages) - 1), tokens.shape[1:3]
    if height % side or width % side:
        raise InputError(f"a grid of {height} x {width} patches does not consist of cells of {side} x {side} patches")
    x = tokens.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(1, 2)
    # Windows are made on the CPU, in one synchronisation. On the meta device cells have no values: take the first ones.
    cells = torch.arange(keep.shape[1], device="cpu").expand_as(keep) if keep.is_meta else keep.cpu()
    keep = keep.to(x.device, non_blocking=True)
    x = x[:, keep[0]] if len(keep) == 1 else x[torch.arange(len(x), device=keep.device)[:, None], keep]
    for stage in stages:
        x = stage.downsample(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        visible = VisibleGrid(cells, width // side, x.shape[2])
        grid = (height // side * x.shape[2], width // side * x.shape[2])
        made: dict[tuple[int, ...], VisibleWindows] = {}
        for block in stage.blocks:
            size, shift = block.attn.window_size, block_shift(block, grid)
            if (*size, *shift) not in made:
                padded = [length + -length % window for length, window in zip(grid, size, strict=True)]
                made[*size, *shift] = _moved(visible.windows(size, shift, padded), x.device)
            with uncompiled(block):  # each mask makes windows of other sizes
                x = run_block(block, x, made[*size, *shift], by=visible_block, recompute=recompute)
    return x.flatten(1, 3)


def visible_block(block: Any, x: Tensor, windows: VisibleWindows) -> Tensor:
    """Run timm's Swin `block` on visible tokens [B, K, side, side, D]."""
    attention, (count, most) = block.attn, windows.tokens.shape
    qkv = attention.qkv(block.norm1(x)).reshape(
        len(x) // windows.images, -1, 3, attention.num_heads, x.shape[-1] // attention.num_heads
    )
    qkv = qkv[:, windows.tokens.flatten()].unflatten(1, (count, most))
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # each [B / images, G * heads, M, channels]
    bias = attention.relative_position_bias_table[windows.distances].permute(0, 3, 1, 2)
    bias = bias.masked_fill(~windows.filled[:, None, None, :], -torch.inf).flatten(0, 1).unsqueeze(0)
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
    y = y.unflatten(1, (count, -1)).transpose(2, 3).flatten(3).flatten(1, 2)[:, windows.places]
    x = x + block.drop_path1(attention.proj(y).reshape(x.shape))
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def _moved(windows: VisibleWindows, device: torch.device) -> VisibleWindows:
    parts = (windows.tokens, windows.filled, windows.places, windows.distances)
    return VisibleWindows(windows.images, *(part.to(device, non_blocking=True) for part in parts))
