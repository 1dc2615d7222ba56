"""Masks whose ratio differs between the samples of a batch (iBOT)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.blocks import block_mask
from mimbench.masks.grids import Grid
from mimbench.masks.host import host_generator, to_device
from mimbench.masks.official import draw_seed, python_mixed_mask
from mimbench.masks.sampling import random_order
from mimbench.shared_batch import draws_rows


@draws_rows
def mixed_ratio_mask(
    batch: int,
    grid: Grid,
    ratios: Sequence[float],
    spreads: Sequence[float],
    generator: torch.Generator,
    *,
    kind: Literal["block", "random"] = "block",
    rng: Literal["torch", "official"] = "torch",
) -> Tensor:
    """iBOT's masks (arXiv:2111.07832; bytedance/ibot@da316d82, loader.py): each sample has its own mask ratio.

    A sample draws one of `ratios`, and its ratio uniformly within the spread of that one, to both sides. A ratio of 0
    without spread gives an empty mask. Blocks are those of `block_mask`, of (min(grid) // 3)**2 cells or more.

    Args:
        ratios: mask ratios, in [0, 1).
        spreads: one per ratio, at most as large as it.
        kind: "block", or "random" cells.
        rng: "official" draws from Python's random, and random cells from numpy's, both seeded by `generator`; "torch"
            has the same distribution, a whole batch at a time.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: a ratio leaves [0, 1), or there is not one spread per ratio, or a block does not fit the grid.
    """
    if not ratios or len(ratios) != len(spreads):
        raise InputError(f"{len(ratios)} mask ratios need as many spreads, not {len(spreads)}")
    for ratio, spread in zip(ratios, spreads, strict=True):
        if not 0 <= spread <= ratio or ratio + spread >= 1:
            raise InputError(f"a mask ratio of {ratio:g} with a spread of {spread:g} leaves [0, 1)")
    if rng == "official":
        seed = draw_seed(generator)
        streams = random.Random(seed), np.random.RandomState(seed)
        return python_mixed_mask(batch, grid, ratios, spreads, kind, *streams).to(generator.device)
    host = host_generator(generator)
    draws = torch.rand(2, batch, generator=host, device=host.device)
    index = (draws[0] * len(ratios)).long()
    means, widths = (torch.tensor(values, device=host.device)[index] for values in (ratios, spreads))
    counts = (means + (2 * draws[1] - 1) * widths) * (grid[0] * grid[1])
    if kind == "random":
        # The order is a random permutation of the cells, so that a fixed number of its values is small.
        mask = (random_order(batch, grid, host) < counts.long()[:, None]).unflatten(1, tuple(grid))
    else:
        mask = block_mask(batch, grid, counts, host, min_block=max(1, (min(grid) // 3) ** 2))
    return to_device(mask, generator.device)
