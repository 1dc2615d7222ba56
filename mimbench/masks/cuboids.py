"""Masks of blocks that extend over space and time."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, grid_text
from mimbench.masks.sampling import masked_count
from mimbench.shared_batch import draws_rows

CUBOIDS = 12
"""Cuboids that are drawn for each clip. What they leave to mask is filled with random cells."""
LEAST, MOST = 0.5, 1.0
"""Sides of a cuboid, as shares of the grid's."""


@draws_rows
def cuboid_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator) -> Tensor:
    """Mask cuboids of random sizes and places until the ratio is reached.

    MaskFeat has such masks in video (arXiv:2112.09133); its sizes and places are others. Each side is between half and
    all of the grid's, at least one cell, and a cuboid may reach beyond the clip. All clips have as many masked cells:
    of the last cuboid, a random part is masked.

    Args:
        grid: (T, Gh, Gw).
        ratio: share of masked cells, rounded up.

    Returns:
        bool [batch, T, Gh, Gw].

    Raises:
        InputError: `grid` has no three lengths, or the ratio masks nothing or everything.
    """
    if len(grid) != 3:
        raise InputError(f"a cuboid mask needs a grid of time, rows and columns, not {grid_text(grid)}")
    device = generator.device
    inside = torch.ones(batch, CUBOIDS, *grid, dtype=torch.bool, device=device)
    for axis, length in enumerate(grid):
        least, most = max(1, round(LEAST * length)), max(1, round(MOST * length))
        draws = torch.rand(2, batch, CUBOIDS, 1, generator=generator, device=device)
        side = least + (draws[0] * (most - least + 1)).long().clamp(max=most - least)
        # From where only its last cell is inside to where only its first one is: so all cells are equally probable.
        start = 1 - side + (draws[1] * (length + side - 1)).long().minimum(length + side - 2)
        index = torch.arange(length, device=device)
        span = (index >= start) & (index < start + side)
        inside &= span.view(batch, CUBOIDS, *(length if other == axis else 1 for other in range(3)))
    inside = inside.flatten(2)
    # The number of the first cuboid that holds a cell; noise below 1 orders the cells of the same cuboid.
    first = torch.where(inside.any(1), inside.int().argmax(1), CUBOIDS)
    order = (first + torch.rand(first.shape, generator=generator, device=device)).argsort(1)
    cells = first.shape[1]
    chosen = order[:, : masked_count(cells, ratio)]
    return torch.zeros(batch, cells, dtype=torch.bool, device=device).scatter_(1, chosen, True).unflatten(1, grid)
