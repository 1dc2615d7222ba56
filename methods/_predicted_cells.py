"""CAPI's masks: one visible block, and a few of the masked patches to predict."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from mimbench.api import Grid, InputError, draw_rows, inverse_block_mask, masked_count, visible_indices


@dataclass(frozen=True)
class PredictedCells:
    """A mask bool [B, Gh, Gw], and row-major indices of visible cells [B, K] and of cells to predict [B, T]."""

    mask: Tensor
    visible: Tensor
    predicted: Tensor


def draw_predicted_cells(
    batch: int,
    grid: Grid,
    ratio: float,
    share: float,
    generator: torch.Generator,
    *,
    aspect: tuple[float, float],
    roll: bool,
) -> PredictedCells:
    """Masks of one visible block, and random ones of their masked cells.

    Args:
        ratio: share of masked cells, rounded down.
        share: of the masked cells that are to be predicted, rounded down.
        aspect, roll: of the block, see `inverse_block_mask`.

    Raises:
        InputError: no cell is to be predicted; as `inverse_block_mask`.
    """
    cells = prod(grid)
    masked = masked_count(cells, ratio, "floor")
    count = int(masked * share)
    if not count:
        raise InputError(
            f"method.predicted_share {share:g} of {masked} masked patches is none; raise it to {1 / masked:.2g} or more"
        )
    mask = inverse_block_mask(batch, grid, masked, generator, aspect=aspect, roll=roll)
    noise = draw_rows(lambda rows: torch.rand(rows, masked, generator=generator, device=generator.device), batch)
    order = noise.argsort(1)[:, :count]
    predicted = visible_indices(~mask, masked).gather(1, order)
    return PredictedCells(mask, visible_indices(mask, cells - masked), predicted)
