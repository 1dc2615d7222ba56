"""Masks of all but one block of visible cells (CAPI's inverse block masks)."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, check_count, grid_text, require_two_axes, spans
from mimbench.shared_batch import draws_rows


@draws_rows
def inverse_block_mask(
    batch: int,
    grid: Grid,
    masked: int,
    generator: torch.Generator,
    *,
    aspect: tuple[float, float] = (0.5, 2.0),
    roll: bool = True,
) -> Tensor:
    """Mask all cells but those of one block per sample (CAPI, arXiv:2502.08769).

    The block is the smallest rectangle of a random aspect that has enough cells, less the last cells of its lower rows.
    Aspects are uniform in their logarithm, among those whose rectangle fits the grid. This is the distribution of
    facebookresearch/capi@43b3feb7 data.py (InverseBlockMasking).

    Args:
        masked: cells to mask in each sample.
        aspect: least and greatest height / width of the rectangle.
        roll: shift the block around the ends of the grid, so that every cell is visible equally often.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: nothing or everything would be masked, or no rectangle fits the grid.
    """
    require_two_axes(grid, "an inverse block mask")
    rows, columns = grid
    visible = rows * columns - check_count(masked, rows * columns, f"a mask of {masked} cells")
    if not 0 < aspect[0] <= aspect[1]:
        raise InputError(f"aspect ({aspect[0]:g}, {aspect[1]:g}) is impossible; give two rising numbers above 0")
    low, high = max(aspect[0], visible / columns**2), min(aspect[1], rows**2 / visible)
    if low > high:
        raise InputError(
            f"no block of {visible} cells with an aspect of {aspect[0]:g} to {aspect[1]:g} fits a {grid_text(grid)} "
            "grid; widen aspect, or mask more cells"
        )

    def draw() -> Tensor:
        return torch.rand(batch, 1, generator=generator, device=generator.device)

    ratio = low * (high / low) ** draw()
    height = (visible * ratio).sqrt().ceil().long().clamp(max=rows)
    width = (visible / ratio).sqrt().ceil().long().clamp(max=columns)
    # Rounding may leave a rectangle one cell short of its area.
    height = torch.where(height * width < visible, (height + 1).clamp(max=rows), height)
    width = torch.where(height * width < visible, (width + 1).clamp(max=columns), width)
    top = (draw() * (rows - height + 1)).long().minimum(rows - height)
    left = (draw() * (columns - width + 1)).long().minimum(columns - width)
    block = spans(top, top + height, rows)[:, :, None] & spans(left, left + width, columns)[:, None, :]
    cells = block.flatten(1)
    block = (cells & (cells.cumsum(1) <= visible)).view_as(block)
    if roll:
        for axis, length in enumerate(grid, start=1):
            shift = (draw() * length).long().clamp(max=length - 1)
            source = (torch.arange(length, device=generator.device) - shift) % length
            source = source[:, :, None] if axis == 1 else source[:, None, :]
            block = block.gather(axis, source.expand(block.shape))
    return ~block
