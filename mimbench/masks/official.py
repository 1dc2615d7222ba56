"""Masks drawn from the official implementations' own random streams, mask for mask.

With the same seed, each function gives the masks that the official generator gives in as many calls in a row. Methods
reach them with rng="official" of `random_mask` and `block_mask`.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import Tensor

from mimbench.masks.grids import Grid

ATTEMPTS = 10
"""Rectangles that BEiT tries for one block before it gives up."""


def draw_seed(generator: torch.Generator) -> int:
    """A seed for another stream, in [0, 2**32), drawn from `generator`."""
    return int(torch.randint(0, 2**32, (), generator=generator, device=generator.device))


def numpy_random_mask(batch: int, grid: Grid, masked: int, rng: np.random.RandomState) -> Tensor:
    """SimMIM's masks (microsoft/SimMIM@d3e29bca, MaskGenerator): the first `masked` cells of a permutation.

    Returns bool [batch, Gh, Gw] on the CPU. `np.random.seed(s)` there is RandomState(s) here.
    """
    masks = np.zeros((batch, grid[0] * grid[1]), dtype=bool)
    for mask in masks:
        mask[rng.permutation(mask.size)[:masked]] = True
    return torch.from_numpy(masks).unflatten(1, grid)


def python_block_mask(
    batch: int,
    grid: Grid,
    count: int,
    rng: random.Random,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """BEiT's block-wise masks (microsoft/unilm@768a3c87, beit/, MaskingGenerator); may mask fewer cells than `count`.

    Returns bool [batch, Gh, Gw] on the CPU. `random.seed(s)` there is Random(s) here.
    """
    masks = np.zeros((batch, *grid), dtype=bool)
    limits = (math.log(aspect[0]), math.log(aspect[1]))
    for mask in masks:
        left = count
        while left > 0:
            added = _add_block(mask, min_block, min(left, max_block or count), limits, rng)
            if added == 0:
                break
            left -= added
    return torch.from_numpy(masks)


def _add_block(mask: np.ndarray, low: int, high: int, log_aspect: tuple[float, float], rng: random.Random) -> int:
    """Mask one rectangle with 1 to `high` visible cells in it; return their number, 0 if no draw fits."""
    rows, columns = mask.shape
    for _ in range(ATTEMPTS):
        area = rng.uniform(low, high)
        ratio = math.exp(rng.uniform(*log_aspect))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height >= rows or width >= columns:
            continue
        top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
        block = mask[top : top + height, left : left + width]
        added = block.size - int(block.sum())
        if 0 < added <= high:
            block[:] = True
            return added
    return 0
