"""Masks whose visible cells lie in blocks, as in data2vec 2.0."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, check_count, require_two_axes
from mimbench.shared_batch import draws_rows


@draws_rows
def visible_blocks_mask(
    batch: int, grid: Grid, ratio: float, generator: torch.Generator, *, block: int = 3, adjust: float = 0.07
) -> Tensor:
    """Mask all but some square blocks, whose places are drawn (data2vec 2.0, arXiv:2212.07525, section 3.2).

    Blocks may overlap and are cut at the border. Then single cells, drawn at random, become visible or masked until
    int(cells * (1 - ratio)) are visible in each sample. After facebookresearch/fairseq@3d262bb,
    fairseq/data/data_utils.py, compute_block_mask_2d, as cwx-worst-one/EAT quotes it; the random stream is another one.

    Args:
        ratio: share of masked cells, in (0, 1).
        block: side of a block, in cells. A block of even side lies half a cell up and to the left of its middle.
        adjust: added to the visible share for the number of blocks: int(cells * (1 - ratio + adjust) / block ** 2).

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: the ratio masks nothing or everything, no block is drawn, or the grid has no two axes.
    """
    require_two_axes(grid, "a mask with visible blocks")
    rows, columns = grid
    cells = rows * columns
    if not 0 < ratio < 1:
        raise InputError(f"mask ratio {ratio:g} is not inside (0, 1)")
    visible = int(cells * (1 - ratio))
    check_count(cells - visible, cells, f"mask ratio {ratio:g}")
    count = int(cells * ((1 - ratio + adjust) / block**2))
    if count < 1:
        raise InputError(f"{cells} cells at mask ratio {ratio:g} have no room for a block of side {block}; lower it")
    device = generator.device
    middle = torch.randint(0, cells, (batch, count, 1), generator=generator, device=device)
    offset = block // 2

    def is_near(place: Tensor, length: int) -> Tensor:
        """[batch, count, 1] -> bool [batch, count, length]: at most this far from the place."""
        distance = torch.arange(length, device=device) - place
        return (distance >= -offset) & (distance < block - offset)

    near = is_near(middle // columns, rows).unsqueeze(3) & is_near(middle % columns, columns).unsqueeze(2)
    covered = near.any(1).flatten(1)
    # Noise is below 1, so that cells in blocks (1 and more) rank before all others.
    order = (torch.rand(covered.shape, generator=generator, device=device) + covered).argsort(1, descending=True)
    mask = torch.ones_like(covered).scatter(1, order[:, :visible], False)
    return mask.unflatten(1, grid)
