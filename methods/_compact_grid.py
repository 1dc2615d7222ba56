"""Squares of 2 x 2 cells, and the compact grid of one cell of each: UM-MAE."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.api import Grid, draw_rows, uniform_mask

VISIBLE, TOKEN, MASKED = 0, 1, 2
"""What a mask holds of each cell: the encoder sees it, the encoder sees a mask token for it, or it is left out."""


def draw_cells(batch: int, grid: Grid, token_ratio: float, generator: torch.Generator) -> Tensor:
    """Masks uint8 [batch, Gh, Gw] of VISIBLE, TOKEN and MASKED: one random cell of each square stays.

    token_ratio: share of the cells that stay that are TOKEN; the number of visible ones is rounded down.
    """
    masked = uniform_mask(batch, grid, generator)
    noise = draw_rows(lambda rows: torch.rand(rows, *grid, generator=generator, device=generator.device), batch)
    # Noise is below 1, so that cells that are left out (1 and more) rank after all others.
    rank = (noise + masked).flatten(1).argsort(dim=1).argsort(dim=1).view_as(masked)
    visible = rank < int(grid[0] * grid[1] // 4 * (1 - token_ratio))
    return torch.where(masked, MASKED, torch.where(visible, VISIBLE, TOKEN)).to(torch.uint8)


def squares_of(cells: Tensor) -> Tensor:
    """[B, Gh, Gw, ...] -> [B, Gh / 2, Gw / 2, 4, ...]: the four cells of each square, row by row."""
    return cells.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3, 4)


def places_of(corners: Tensor) -> Tensor:
    """Row-major index of the cell of each square at its corner: [B, h, w], from 0 to 3 -> [B, h * w]."""
    rows, columns = (torch.arange(length, device=corners.device) for length in corners.shape[1:])
    row, column = 2 * rows[:, None] + corners // 2, 2 * columns + corners % 2
    return (row * 2 * len(columns) + column).flatten(1)


def one_of_each_square(visible: Tensor) -> Tensor:
    """Visible cells, bool [B, Gh, Gw], as VISIBLE, TOKEN and MASKED: uint8 [B, Gh, Gw].

    Of each square the first visible cell in row-major order is VISIBLE and all others are MASKED. In a square without a
    visible cell the first one is TOKEN, so that the encoder sees no masked pixels.
    """
    places = places_of(squares_of(visible).int().argmax(-1))
    stays = torch.where(visible.flatten(1).gather(1, places), VISIBLE, TOKEN).to(torch.uint8)
    cells = torch.full_like(visible, MASKED, dtype=torch.uint8)
    return cells.flatten(1).scatter(1, places, stays).view_as(visible)


def compact(tokens: Tensor, corners: Tensor) -> Tensor:
    """Tokens [B, h, w, D] of the cells at the corners only, as a grid [B, h / 2, w / 2, D].

    corners: int64 [B, Gh / 2, Gw / 2], of squares of 2 x 2 cells with some tokens each.
    """
    rows, columns = corners.shape[1:]
    side = tokens.shape[1] // (2 * rows)
    cells = tokens.unflatten(2, (2 * columns, side)).unflatten(1, (2 * rows, side)).transpose(2, 3)
    index = corners[..., None, None, None, None].expand(-1, -1, -1, 1, *cells.shape[3:])
    chosen = squares_of(cells).gather(3, index).squeeze(3)
    return chosen.transpose(2, 3).flatten(3, 4).flatten(1, 2)
