"""Masks of blocks of space and time."""

from __future__ import annotations

import pytest
import torch

from helpers.random_inputs import seeded
from mimbench.errors import InputError
from mimbench.masks import cuboid_mask, random_mask

GRID = (4, 8, 8)


def neighbours_agree(mask: torch.Tensor) -> float:
    """Share of neighbours along any axis that are both masked or both visible."""
    pairs = [mask.diff(dim=axis) == 0 for axis in (1, 2, 3)]
    return float(torch.cat([pair.flatten() for pair in pairs]).float().mean())


@pytest.mark.parametrize("ratio", [0.1, 0.6, 0.9])
def test_every_clip_has_the_exact_count(ratio):
    mask = cuboid_mask(50, GRID, ratio, seeded())
    assert mask.shape == (50, *GRID)
    assert set(mask.flatten(1).sum(1).tolist()) == {-(-256 * ratio // 1)}


def test_masked_cells_lie_together_and_everywhere():
    mask = cuboid_mask(400, GRID, 0.4, seeded())
    assert neighbours_agree(mask) > 0.8
    assert neighbours_agree(random_mask(400, GRID, 0.4, seeded())) < 0.6
    share = mask.float().mean(0)
    assert share.min() > 0.05
    assert share.max() < 0.8
    assert (mask[:, 0] != mask[:, -1]).any()  # a block need not last for the whole clip


def test_equal_seeds_give_equal_masks():
    assert torch.equal(cuboid_mask(3, GRID, 0.5, seeded(4)), cuboid_mask(3, GRID, 0.5, seeded(4)))
    assert not torch.equal(cuboid_mask(3, GRID, 0.5, seeded(4)), cuboid_mask(3, GRID, 0.5, seeded(5)))


def test_images_are_refused():
    with pytest.raises(InputError, match="needs a grid of time, rows and columns, not 8 x 8"):
        cuboid_mask(1, (8, 8), 0.5, seeded())
