"""Masks drawn from the official implementations' own random streams, mask for mask.

With the same seed, each function gives the masks that the official generator gives in as many calls in a row. Methods
reach them with rng="official" of `random_mask`, `tube_mask`, `block_mask` and `multi_block_mask`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mimbench.masks.grids import Grid

ATTEMPTS = 10
"""Rectangles that BEiT tries for one block before it gives up."""
TRIES = 20
"""Contexts that I-JEPA draws before one more target may overlap it."""


def draw_seed(generator: torch.Generator) -> int:
    """A seed for another stream, in [0, 2**32), drawn from `generator`."""
    return int(torch.randint(0, 2**32, (), generator=generator, device=generator.device))


def numpy_random_mask(batch: int, grid: Grid, masked: int, rng: np.random.RandomState) -> Tensor:
    """SimMIM's masks (microsoft/SimMIM@d3e29bca, MaskGenerator): the first `masked` cells of a permutation.

    Returns bool [batch, *grid] on the CPU. `np.random.seed(s)` there is RandomState(s) here.
    """
    masks = np.zeros((batch, math.prod(grid)), dtype=bool)
    for mask in masks:
        mask[rng.permutation(mask.size)[:masked]] = True
    return torch.from_numpy(masks).unflatten(1, grid)


def numpy_tube_mask(batch: int, grid: Grid, masked: int, rng: np.random.RandomState) -> Tensor:
    """VideoMAE's tubes in one frame (MCG-NJU/VideoMAE@14ef8d85, masking_generator.py): `masked` ones, shuffled.

    Returns bool [batch, Gh, Gw] on the CPU. `np.random.seed(s)` there is RandomState(s) here.
    """
    masks = np.zeros((batch, grid[0] * grid[1]), dtype=bool)
    masks[:, masks.shape[1] - masked :] = True
    for mask in masks:
        rng.shuffle(mask)
    return torch.from_numpy(masks).unflatten(1, grid)


def official_guided_mask(
    scores: Tensor, masked: int, guided: int, rng: np.random.RandomState, generator: torch.Generator
) -> Tensor:
    """HPM's masks (Haochen-Wang409/HPM@c15ae907, models_mae_learn_loss.py): `guided` cells of the highest scores.

    Numpy shuffles the other cells. Without guided cells, torch's normal noise is sorted.

    Args:
        scores: [B, N], on the CPU.
        rng, generator: `np.random.seed(s)` there is RandomState(s) here, `torch.manual_seed(s)` is manual_seed(s).

    Returns:
        bool [B, N].
    """
    mask = torch.ones(scores.shape, dtype=torch.bool)
    visible = scores.shape[1] - masked
    if not guided:
        return mask.scatter_(1, torch.randn(scores.shape, generator=generator).argsort(1)[:, :visible], False)
    for row, order in zip(mask, scores.argsort(1).numpy(), strict=True):
        others = np.sort(order[:-guided])
        rng.shuffle(others)
        row[torch.from_numpy(others[:visible])] = False
    return mask


def torch_multi_blocks(
    batch: int,
    grid: Grid,
    count: int,
    target: tuple[int, int],
    context: tuple[int, int],
    least: int,
    allow_overlap: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """I-JEPA's blocks of given sizes (facebookresearch/ijepa@52c1ae95, src/masks/multiblock.py), before they are cut.

    Returns:
        Targets bool [count, batch, Gh, Gw] and contexts bool [batch, Gh, Gw], on the CPU. `torch.manual_seed(s)` there
        is torch.Generator().manual_seed(s) here.
    """

    def place(size: tuple[int, int]) -> Tensor:
        top, left = (
            int(torch.randint(0, length - side, (1,), generator=generator))
            for length, side in zip(grid, size, strict=True)
        )
        block = torch.zeros(grid, dtype=torch.bool)
        block[top : top + size[0], left : left + size[1]] = True
        return block

    targets = torch.zeros(count, batch, *grid, dtype=torch.bool)
    contexts = torch.zeros(batch, *grid, dtype=torch.bool)
    for sample in range(batch):
        for index in range(count):
            targets[index, sample] = place(target)
        tries = 0
        while contexts[sample].sum() < least:
            avoided = 0 if allow_overlap else max(count - tries // TRIES, 0)
            contexts[sample] = place(context) & ~targets[:avoided, sample].any(0)
            tries += 1
    return targets, contexts


def python_block_mask(
    batch: int,
    grid: Grid,
    count: float,
    rng: random.Random,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    retry: bool = False,
) -> Tensor:
    """BEiT's block-wise masks (microsoft/unilm@768a3c87, beit/, MaskingGenerator); may mask fewer cells than `count`.

    With `retry` those of CAE (lxtGH/CAE@d7259714, furnace/masking_generator.py), which mask exactly `count`.
    iBOT has the same loop with a `count` that is no whole number (bytedance/ibot@da316d82, loader.py).

    Returns bool [batch, Gh, Gw] on the CPU. `random.seed(s)` there is Random(s) here.
    """
    masks = np.zeros((batch, *grid), dtype=bool)
    limits = (math.log(aspect[0]), math.log(aspect[1]))
    for mask in masks:
        left = count
        while left > 0:
            added = _add_block(mask, min_block, min(left, max_block or count), limits, rng)
            if added == 0 and not retry:
                break
            left -= added
    return torch.from_numpy(masks)


def python_mixed_mask(
    batch: int,
    grid: Grid,
    ratios: Sequence[float],
    spreads: Sequence[float],
    kind: str,
    rng: random.Random,
    numpy_rng: np.random.RandomState,
) -> Tensor:
    """iBOT's masks (bytedance/ibot@da316d82, loader.py, ImageFolderMask), one after the other.

    Returns bool [batch, Gh, Gw] on the CPU. `random.seed(s)` and `np.random.seed(s)` there are Random(s) and
    RandomState(s) here. Official loaders also draw, and drop, a mask for each local crop.
    """
    masks = []
    for _ in range(batch):
        drawn = [
            rng.uniform(ratio - spread, ratio + spread) if spread > 0 else ratio
            for ratio, spread in zip(ratios, spreads, strict=True)
        ]
        count = (rng.choice(drawn) if len(drawn) > 1 else drawn[0]) * grid[0] * grid[1]
        if kind == "random":
            cells = np.arange(grid[0] * grid[1]) >= grid[0] * grid[1] - int(count)
            numpy_rng.shuffle(cells)
            masks.append(torch.from_numpy(cells).view(1, *grid))
        else:
            masks.append(python_block_mask(1, grid, count, rng, min_block=(min(grid) // 3) ** 2))
    return torch.cat(masks)


def numpy_fill_up(masks: Tensor, count: int, rng: np.random.RandomState) -> None:
    """Mask random visible cells, in place, until each mask has `count` (microsoft/unilm@768a3c87, beit2/).

    masks: bool [batch, Gh, Gw] on the CPU, from `python_block_mask`. `np.random.seed(s)` there is RandomState(s) here.
    """
    for mask in masks.numpy():
        missing = count - int(mask.sum())
        if missing > 0:
            visible = np.flatnonzero(~mask)
            mask.flat[visible[rng.choice(len(visible), missing, replace=False)]] = True


def _add_block(mask: np.ndarray, low: float, high: float, log_aspect: tuple[float, float], rng: random.Random) -> int:
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
