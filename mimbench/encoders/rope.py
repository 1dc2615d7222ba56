"""Rotary position embeddings (RoPE) of patches, axial in two dimensions: as DINOv3 has them, and as CAPI."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotary_table(grid: tuple[int, ...], channels: int, base: float, *, device: torch.device | None = None) -> Tensor:
    """Cosines and sines of each patch's rotation angles: float32 [h * w, 2 * channels], cosines first.

    A patch in row r and column c has the coordinates y = 2 (r + 1/2) / h - 1 and x = 2 (c + 1/2) / w - 1, both in
    [-1, 1]. Frequency i of channels / 4 has the period base^(i / (channels / 4)), and the angles are 2 pi y / period
    for the first quarter of the channels, 2 pi x / period for the second. The two quarters are then repeated, since a
    channel of the first half is rotated with its partner in the second half.

    Source: facebookresearch/dinov3, dinov3/layers/rope_position_encoding.py (arXiv:2508.10104), with normalised
    coordinates per axis, base 100 and no augmentation of coordinates. EVA-02 (arXiv:2303.11331) has the same axial
    form with base 10000, coordinates counted in patches, and neighbouring channels as partners.

    Args:
        grid: rows and columns of patches.
        channels: channels of an attention head, a multiple of 4.
        base: ratio of the longest period to the shortest, up to one step of the progression.
        device: of the table.
    """
    rows, columns = (2 * (torch.arange(side, device=device) + 0.5) / side - 1 for side in grid)
    quarter = channels // 4
    periods = base ** (torch.arange(quarter, device=device) / quarter)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)
    return torch.cat((angles.cos(), angles.sin()), 1)


def with_unrotated_prefix(table: Tensor, prefix: int) -> Tensor:
    """A table for `prefix` tokens that are not rotated and then the patches: [1, 1, prefix + h * w, 2 * channels]."""
    unrotated = torch.zeros(prefix, table.shape[1], device=table.device)
    unrotated[:, : table.shape[1] // 2] = 1.0  # cosine 1 and sine 0
    return torch.cat((unrotated, table))[None, None]


def edge_rotary_table(
    grid: tuple[int, ...],
    channels: int,
    prefix: int = 0,
    keep: Tensor | None = None,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """A table for prefix tokens and patches, as CAPI has it: float32 [1 or B, 1, prefix + N, 2 * channels].

    A patch in row r and column c has the coordinates r / (h - 1) and c / (w - 1), in [0, 1]. Prefix tokens are spread
    evenly along the edges of the rectangle around the patches, beginning at the upper left corner. Frequency i of
    channels / 4, in turns per unit, falls geometrically from 7 to 0.0007. The angles are those of the row for the first
    half of the channels, each frequency twice, and those of the column for the second half.

    As in the official code, a channel of the first half has its partner in the second half. The two are turned by
    different angles, so their length changes. With one row or column of patches its coordinate is 0.

    Source: facebookresearch/capi@0145b88f model.py (arXiv:2502.08769), where coordinates have the precision of images.
    There the number of prefix tokens is a multiple of 4.

    Args:
        grid: rows and columns of patches.
        channels: channels of an attention head, a multiple of 4.
        prefix: number of prefix tokens.
        keep: row-major indices of N patches, int64 [B, N]; None: all.
        device: of the table, if `keep` is None.
    """
    device = device if keep is None else keep.device
    rows, columns = (torch.linspace(0, 1, side, device=device) for side in grid)
    places = torch.cartesian_prod(rows, columns)
    places = places.unsqueeze(0) if keep is None else places[keep]
    if prefix:
        low, high = places.amin(1, keepdim=True), places.amax(1, keepdim=True)
        places = torch.cat((low + _edge_places(prefix, device) * (high - low), places), 1)
    frequencies = 7.0 * 1e4 ** torch.linspace(0, -1, channels // 4, device=device)
    angles = 2 * math.pi * places[..., None] * frequencies
    angles = torch.cat((angles, angles), -1).flatten(-2)
    return torch.cat((angles.cos(), angles.sin()), -1).unsqueeze(1)


def _edge_places(count: int, device: torch.device | None) -> Tensor:
    """Coordinates (row, column) of tokens along the edges of the unit square: float32 [count, 2]."""
    quarters = 4 * torch.arange(count, device=device)
    side, along = quarters // count, (quarters % count) / count
    zero, one = torch.zeros_like(along), torch.ones_like(along)
    edges = torch.stack(
        [torch.stack(edge, -1) for edge in ((along, zero), (one, along), (1 - along, one), (zero, 1 - along))]
    )
    return edges[side, torch.arange(count, device=device)]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate pairs of channels of x [B, heads, N, channels] by `table` [1 or B, 1, N, 2 * channels], a channel of the
    first half with its partner in the second half."""
    cosine, sine = table.chunk(2, -1)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine
