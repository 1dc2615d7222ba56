"""Rotary position embeddings (RoPE) of patches, axial in two dimensions as DINOv3 has them."""

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


def with_idle(table: Tensor, prefix: int) -> Tensor:
    """A table for `prefix` tokens that are not rotated and then the patches: [1, 1, prefix + h * w, 2 * channels]."""
    idle = torch.zeros(prefix, table.shape[1], device=table.device)
    idle[:, : table.shape[1] // 2] = 1.0  # cosine 1 and sine 0
    return torch.cat((idle, table))[None, None]


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate pairs of channels of x [B, heads, N, channels] by `table` [1 or B, 1, N, 2 * channels]."""
    cosine, sine = table.chunk(2, -1)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat((-second, first), -1) * sine
