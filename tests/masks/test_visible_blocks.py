"""Masks that leave blocks visible."""

from __future__ import annotations

import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import visible_blocks_mask


@pytest.mark.parametrize(
    ("grid", "ratio", "block", "adjust"),
    [((14, 14), 0.8, 3, 0.07), ((14, 14), 0.75, 3, 0.1), ((6, 9), 0.5, 2, 0.2), ((7, 7), 0.9, 1, 0.0)],
)
def test_blocks_cell_by_cell_then_single_cells(grid, ratio, block, adjust):
    """The same draws, with loops: places of blocks first, then noise that decides between single cells."""
    mask = visible_blocks_mask(5, grid, ratio, seeded(3), block=block, adjust=adjust)
    generator, (rows, columns) = seeded(3), grid
    cells = rows * columns
    count, visible = int(cells * ((1 - ratio + adjust) / block**2)), int(cells * (1 - ratio))
    places = torch.randint(0, cells, (5, count, 1), generator=generator)
    noise = torch.rand(5, cells, generator=generator)
    for sample in range(5):
        covered = set()
        for place in places[sample].flatten().tolist():
            for down in range(block):
                for right in range(block):
                    row = min(max(place // columns + down - block // 2, 0), rows - 1)
                    column = min(max(place % columns + right - block // 2, 0), columns - 1)
                    covered.add(row * columns + column)
        ranked = sorted(range(cells), key=lambda cell, sample=sample: -noise[sample, cell].item())
        ranked = [cell for cell in ranked if cell in covered] + [cell for cell in ranked if cell not in covered]
        assert set((~mask[sample].flatten()).nonzero().flatten().tolist()) == set(ranked[:visible])


def test_visible_cells_are_neighbours_far_more_often_than_at_random():
    mask = visible_blocks_mask(64, (14, 14), 0.8, seeded())
    visible = ~mask
    assert visible.flatten(1).sum(1).unique().tolist() == [39]  # int(196 * 0.2)
    together = (visible[:, 1:] & visible[:, :-1]).float().mean() / visible.float().mean() ** 2
    assert together > 2
    assert (mask.float().mean(0) - 0.8).abs().max() < 0.25


@pytest.mark.parametrize(
    ("grid", "ratio", "options", "message"),
    [
        ((7, 7), 1.0, {}, "mask ratio 1 is not inside"),
        ((7, 7), 0.99, {}, "masks everything of 49 cells"),
        ((7, 7), 0.8, {"block": 7}, "49 cells at mask ratio 0.8 have no room for a block of side 7; lower it"),
        ((2, 7, 7), 0.8, {}, "needs a grid of rows and columns"),
    ],
)
def test_impossible_masks_are_refused(grid, ratio, options, message):
    with pytest.raises(InputError, match=message):
        visible_blocks_mask(2, grid, ratio, seeded(), **options)
