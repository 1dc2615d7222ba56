"""Masks of all but one block: their count, their form, and the distribution of a plain loop."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import inverse_block_mask


def loop(count, grid, masked, aspect, roll, seed=0):
    """bool [count, Gh, Gw], one mask at a time (facebookresearch/capi@43b3feb7 data.py says what is drawn)."""
    rng, (rows, columns) = random.Random(seed), grid
    visible = rows * columns - masked
    low = max(math.log(aspect[0]), math.log(visible / columns**2))
    high = min(math.log(aspect[1]), math.log(rows**2 / (visible + 1e-5)))
    masks = []
    for _ in range(count):
        ratio = math.exp(low + (high - low) * rng.random())
        height, width = math.ceil(math.sqrt(visible * ratio)), math.ceil(math.sqrt(visible / ratio))
        top, left = rng.randrange(rows - height + 1), rng.randrange(columns - width + 1)
        cells = [(row, column) for row in range(top, top + height) for column in range(left, left + width)][:visible]
        shift = (rng.randrange(rows), rng.randrange(columns)) if roll else (0, 0)
        mask = np.ones(grid, dtype=bool)
        for row, column in cells:
            mask[(row + shift[0]) % rows, (column + shift[1]) % columns] = False
        masks.append(mask)
    return torch.from_numpy(np.array(masks))


@pytest.mark.parametrize("roll", [True, False])
@pytest.mark.parametrize(
    ("grid", "masked", "aspect"), [((16, 16), 166, (0.5, 2.0)), ((6, 9), 20, (0.5, 2.0)), ((7, 7), 31, (1.0, 1.0))]
)
def test_masks_have_the_distribution_of_a_plain_loop(grid, masked, aspect, roll):
    count = 3000
    drawn = inverse_block_mask(count, grid, masked, seeded(), aspect=aspect, roll=roll)
    expected = loop(count, grid, masked, aspect, roll)
    assert drawn.shape == expected.shape
    assert (drawn.flatten(1).sum(1) == masked).all()
    # Shares of 3,000 draws differ by 0.013 (one standard deviation) at most.
    assert (drawn.float().mean(0) - expected.float().mean(0)).abs().max() < 0.06
    for axis in (1, 2):  # how many rows, and columns, have a visible cell
        spans = [(~masks).any(3 - axis).sum(1).float() for masks in (drawn, expected)]
        assert spans[0].mean().item() == pytest.approx(spans[1].mean().item(), abs=0.12)
        assert spans[0].unique().tolist() == spans[1].unique().tolist()


def test_without_roll_the_visible_cells_are_one_rectangle_less_the_end_of_its_rows():
    for mask in inverse_block_mask(200, (8, 8), 64 - 15, seeded(), roll=False):
        rows, columns = (~mask).nonzero().unbind(1)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        inside = [
            (int(rows.min()) + row, int(columns.min()) + column) for row in range(height) for column in range(width)
        ]
        assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == inside[:15]
        assert 0.4 < height / width < 2.6


def test_with_roll_every_cell_is_visible_equally_often():
    share = (~inverse_block_mask(4000, (8, 8), 44, seeded())).float().mean(0)
    assert (share - 20 / 64).abs().max() < 0.04


@pytest.mark.parametrize("visible", range(1, 49))
def test_every_count_is_exact(visible):
    mask = inverse_block_mask(40, (7, 7), 49 - visible, seeded(visible))
    assert ((~mask).flatten(1).sum(1) == visible).all()


@pytest.mark.parametrize(
    ("grid", "masked", "aspect", "words"),
    [
        ((4, 4), 16, (0.5, 2.0), "masks everything of 16 cells"),
        ((4, 4), 0, (0.5, 2.0), "masks nothing of 16 cells"),
        ((4, 4), 6, (2.0, 3.0), "no block of 10 cells with an aspect of 2 to 3 fits a 4 x 4 grid; widen aspect"),
        ((4, 4), 6, (2.0, 0.5), r"aspect \(2, 0.5\) is impossible"),
        ((2, 4, 4), 6, (0.5, 2.0), "needs a grid of rows and columns, not 2 x 4 x 4"),
    ],
)
def test_impossible_masks_are_refused(grid, masked, aspect, words):
    with pytest.raises(InputError, match=words):
        inverse_block_mask(2, grid, masked, seeded(), aspect=aspect)
