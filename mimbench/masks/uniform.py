"""Masks that leave one cell of each 2 x 2 visible, at a random corner (UM-MAE, arXiv:2205.10063)."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, grid_text, require_two_axes
from mimbench.shared_batch import draws_rows


@draws_rows
def uniform_mask(batch: int, grid: Grid, generator: torch.Generator) -> Tensor:
    """Leave a random cell of each square of 2 x 2 cells visible, and mask the others.

    As in the official code, the corners of a sample come from a shuffled pool, which has each of the four corners
    equally often and is twice as large as needed. Independent draws would be less balanced.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: squares of 2 x 2 cells do not tile the grid, or it has frames.
    """
    require_two_axes(grid, "a uniform mask")
    if grid[0] % 2 or grid[1] % 2:
        raise InputError(f"a uniform mask, of 2 x 2 cells, does not tile a {grid_text(grid)} grid")
    rows, columns = grid[0] // 2, grid[1] // 2
    pool = 4 * -(-2 * rows * columns // 4)
    order = torch.rand(batch, pool, generator=generator, device=generator.device).argsort(dim=1)
    corners = (order % 4)[:, : rows * columns, None]
    masked = torch.ones(batch, rows * columns, 4, dtype=torch.bool, device=generator.device)
    squares = masked.scatter(2, corners, False).view(batch, rows, columns, 2, 2)
    return squares.transpose(2, 3).reshape(batch, *grid)
