"""Masks from filtered noise (ColorMAE, arXiv:2407.13036)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, require_two_axes
from mimbench.masks.sampling import Rounding, masked_count
from mimbench.shared_batch import draws_rows

NoiseColour = Literal["red", "green", "blue", "purple"]


@draws_rows
def noise_mask(
    batch: int,
    grid: Grid,
    ratio: float,
    generator: torch.Generator,
    *,
    colour: NoiseColour = "green",
    sigma: tuple[float, float] = (1.0, 2.0),
    rounding: Rounding = "ceil",
) -> Tensor:
    """Mask the cells whose value in filtered white noise is lowest, `masked_count` of each sample.

    Two Gaussian filters divide the noise into three bands, which add up to it: what the wide one leaves (red), what the
    narrow one removes (blue), and what is between (green). Purple is red and blue together. Red noise masks large
    regions, green noise regions of a size that `sigma` chooses, blue noise scattered cells.

    Each sample is drawn anew. The official code cuts and mirrors 3072 stored patterns instead, one cut per batch; see
    `stored_noise_mask`.

    Args:
        sigma: standard deviations of the narrow and of the wide filter, in cells.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: the ratio masks nothing or everything, `sigma` does not rise from above 0, or the grid has frames.
    """
    require_two_axes(grid, "a mask of filtered noise")
    masked = masked_count(math.prod(grid), ratio, rounding)
    return mask_lowest(coloured_noise(batch, grid, generator, colour, sigma), masked)


def mask_lowest(values: Tensor, masked: int) -> Tensor:
    """Mask the `masked` cells of each sample whose values are lowest; both [B, Gh, Gw]."""
    lowest = values.flatten(1).argsort(dim=1)[:, :masked]
    mask = torch.zeros_like(values, dtype=torch.bool).flatten(1).scatter(1, lowest, True)
    return mask.view_as(values)


def coloured_noise(
    batch: int, grid: Grid, generator: torch.Generator, colour: NoiseColour, sigma: tuple[float, float]
) -> Tensor:
    """Gaussian white noise, filtered as `noise_mask` says: [batch, Gh, Gw]. No cell is at a border.

    Raises:
        InputError: `sigma` does not rise from above 0.
    """
    narrow, wide = sigma
    if not 0 < narrow < wide:
        raise InputError(f"the filters of noise masks have sigmas that rise from above 0, not {narrow:g} and {wide:g}")
    margin = _reach(wide)
    shape = (batch, grid[0] + 2 * margin, grid[1] + 2 * margin)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    white = noise[:, margin:-margin, margin:-margin]
    below = _blur(noise, grid, wide, margin)
    if colour == "red":
        return below
    up_to_narrow = _blur(noise, grid, narrow, margin)
    if colour == "blue":
        return white - up_to_narrow
    return up_to_narrow - below if colour == "green" else white - up_to_narrow + below


def _blur(noise: Tensor, grid: Grid, sigma: float, margin: int) -> Tensor:
    """Noise [B, h + 2 * margin, w + 2 * margin] through a Gaussian filter of weight 1: [B, h, w]."""
    rows, columns = (_weights(length, sigma, margin, noise.device) for length in grid)
    # Autocast would round the values, and masks would depend on the precision of the training.
    with torch.autocast(noise.device.type, enabled=False):
        return rows @ noise @ columns.T


def _weights(length: int, sigma: float, margin: int, device: torch.device) -> Tensor:
    """[length, length + 2 * margin]: what each cell of the noise gives to each filtered one, along one axis."""
    centre = torch.arange(length, device=device)[:, None] + margin
    distance = (torch.arange(length + 2 * margin, device=device) - centre).abs()
    weights = (-0.5 * (distance / sigma) ** 2).exp().masked_fill(distance > _reach(sigma), 0.0)
    return weights / weights.sum(1, keepdim=True)


def _reach(sigma: float) -> int:
    """Cells from the middle of a Gaussian filter to its end."""
    return max(1, math.ceil(4 * sigma))
