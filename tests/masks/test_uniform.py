"""Masks that leave one cell of each 2 x 2 visible."""

from __future__ import annotations

import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.contract import InputError
from mimbench.masks import uniform_mask


def corners(masks: torch.Tensor) -> torch.Tensor:
    """Which cell of each square is visible, read cell by cell: [B, squares]."""
    places = []
    for mask in masks.tolist():
        for row in range(0, len(mask), 2):
            for column in range(0, len(mask[0]), 2):
                square = [mask[row + y][column + x] for y in (0, 1) for x in (0, 1)]
                assert square.count(False) == 1
                places.append(square.index(False))
    return torch.tensor(places).view(len(masks), -1)


@pytest.mark.parametrize("grid", [(2, 2), (4, 6), (16, 16)])
def test_one_cell_of_each_square_stays(grid):
    masks = uniform_mask(20, grid, seeded())
    assert masks.dtype == torch.bool
    assert masks.shape == (20, *grid)
    assert corners(masks).shape == (20, grid[0] * grid[1] // 4)


def test_corners_come_from_a_balanced_pool():
    """16 x 16 cells have 64 squares, and a pool of 128 corners: 32 of each, as a hypergeometric distribution has it."""
    places = corners(uniform_mask(600, (16, 16), seeded()))
    counts = torch.stack([(places == corner).sum(1) for corner in range(4)], 1).float()
    assert counts.max() <= 32
    assert counts.mean(0).tolist() == pytest.approx([16] * 4, abs=0.5)
    # Independent draws would have a variance of 64 x 1/4 x 3/4 = 12; drawn from the pool it is 12 x 64 / 127.
    assert counts.var(0).mean().item() == pytest.approx(12 * 64 / 127, rel=0.12)
    share = torch.stack([(places == corner).float().mean(0) for corner in range(4)])
    assert (share - 0.25).abs().max() < 0.09


def test_masks_depend_on_the_generator_only():
    first = uniform_mask(2, (8, 8), seeded(1))
    torch.manual_seed(5)
    assert torch.equal(first, uniform_mask(2, (8, 8), seeded(1)))
    assert not torch.equal(first, uniform_mask(2, (8, 8), seeded(2)))


@pytest.mark.parametrize("grid", [(7, 8), (8, 7)])
def test_an_odd_grid_is_refused(grid):
    with pytest.raises(InputError, match="a uniform mask, of 2 x 2 cells, does not tile a"):
        uniform_mask(1, grid, seeded())


def test_frames_are_refused():
    with pytest.raises(InputError, match="a uniform mask needs a grid of rows and columns"):
        uniform_mask(1, (2, 8, 8), seeded())
