"""Which cells of an image a method hides: bool [B, Gh, Gw], True = hidden.

A cell is any square that tiles the image: a mask patch, a model patch, a pixel. Every generator draws
from a torch.Generator and returns its masks on that generator's device.
"""

from __future__ import annotations

import math
import random
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.official import ATTEMPTS, numpy_random_mask, python_block_mask

Grid = tuple[int, ...]
Rounding = Literal["ceil", "floor", "mae"]
Rng = Literal["torch", "official"]


def hidden_count(cells: int, ratio: float, rounding: Rounding = "ceil") -> int:
    """How many of `cells` a ratio hides.

    ceil: SimMIM's rule. floor: cut. mae: MAE's, which cuts the number of visible cells instead.

    Raises:
        InputError: the ratio is not inside (0, 1), or so near to an end that nothing or everything is hidden.
    """
    if not 0 < ratio < 1:
        raise InputError(f"mask ratio {ratio:g} is not inside (0, 1)")
    if rounding == "mae":
        hidden = cells - int(cells * (1 - ratio))
    else:
        hidden = math.ceil(cells * ratio) if rounding == "ceil" else int(cells * ratio)
    return _checked_count(hidden, cells, f"mask ratio {ratio:g}")


def random_mask(
    batch: int,
    grid: Grid,
    ratio: float,
    generator: torch.Generator,
    *,
    rounding: Rounding = "ceil",
    rng: Rng = "torch",
) -> Tensor:
    """Hide `hidden_count` cells of each sample, chosen uniformly.

    rng="official" draws from numpy as SimMIM does, seeded by `generator`; "torch" is already MAE's stream.
    """
    cells = grid[0] * grid[1]
    hidden = hidden_count(cells, ratio, rounding)
    if rng == "official":
        masks = numpy_random_mask(batch, grid, hidden, np.random.RandomState(_seed(generator)))
        return masks.to(generator.device)
    visible = random_order(batch, grid, generator)[:, : cells - hidden]
    mask = torch.ones(batch, cells, dtype=torch.bool, device=generator.device)
    return mask.scatter_(1, visible, False).unflatten(1, grid)


def random_order(batch: int, grid: Grid, generator: torch.Generator) -> Tensor:
    """Cells in random order, int64 [batch, Gh * Gw]; with a ratio of MAE, the first are the visible ones.

    This is `ids_shuffle` of facebookresearch/mae@efb2a806, draw for draw; its argsort is `ids_restore`.
    """
    return torch.rand(batch, grid[0] * grid[1], generator=generator, device=generator.device).argsort(dim=1)


def visible_indices(mask: Tensor, count: int | None = None) -> Tensor:
    """Row-major indices of the visible cells of `mask` [B, Gh, Gw], rising: int64 [B, K].

    count: K, where it is known beforehand. An accelerator then need not be waited for, and is trusted.

    Raises:
        InputError: samples differ in how many cells they hide (`block_mask` unless exact), or from `count`.
    """
    hidden = mask.flatten(1)
    if count is None or mask.device.type == "cpu":
        counts = (~hidden).sum(1)
        wanted = counts[0] if count is None else count
        if bool((counts != wanted).any()):
            raise InputError("samples hide different numbers of cells; use a mask with an exact count")
        count = int(wanted)
    return hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :count]


def block_mask(
    batch: int,
    grid: Grid,
    count: int,
    generator: torch.Generator,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    exact: bool = False,
    rng: Rng = "torch",
) -> Tensor:
    """BEiT's block-wise masks (arXiv:2106.08254, algorithm 1): rectangles until `count` cells are hidden.

    As there, a sample ends short of `count`, or even empty, where ten rectangles in a row do not fit (each must
    be smaller than the grid along both sides); `exact` then hides random cells in addition.

    Args:
        min_block: least area of a rectangle, in cells, while that many are left to hide.
        max_block: most cells that one rectangle may add; absent: all that are left.
        aspect: least and greatest height / width.
        rng: "official" draws from Python's random as BEiT does, seeded by `generator`; "torch" has the same
            distribution, a whole batch at a time.
    """
    max_block = count if max_block is None else max_block
    _check_blocks(grid, count, min_block, max_block, aspect)
    if rng == "official":
        draws = random.Random(_seed(generator))
        masks = python_block_mask(batch, grid, count, draws, min_block=min_block, max_block=max_block, aspect=aspect)
        mask = masks.to(generator.device)
    else:
        mask = _blocks(batch, grid, count, generator, min_block, max_block, aspect)
    return _fill(mask, count, generator) if exact else mask


def square_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator, *, centred: bool = False) -> Tensor:
    """Hide one square in each sample: at a random place (SimMIM, table 1) or in the middle.

    Its side is the whole number of cells whose area comes nearest to `ratio`.
    """
    if not 0 < ratio < 1:
        raise InputError(f"mask ratio {ratio:g} is not inside (0, 1)")
    side = max(1, round(math.sqrt(ratio * grid[0] * grid[1])))
    if side > min(grid) or grid == (side, side):
        raise InputError(
            f"a square of {side} x {side} cells (mask ratio {ratio:g}) leaves nothing of a {_text(grid)} grid"
        )
    axes = []
    for length in grid:
        room = length - side
        start = torch.randint(0, room + 1, (batch, 1), generator=generator, device=generator.device)
        start = torch.full_like(start, room // 2) if centred else start
        axes.append(_span(start, start + side, length))
    return axes[0][:, :, None] & axes[1][:, None, :]


def grid_mask(batch: int, grid: Grid, generator: torch.Generator, *, period: int = 2, shift: bool = False) -> Tensor:
    """Keep one cell of each `period` x `period` and hide the rest (MAE, figure 6: 75 percent at 2).

    The cell kept is the upper left one; with `shift`, a random one for each sample.
    """
    if period < 2 or grid[0] % period or grid[1] % period:
        raise InputError(f"a grid mask of period {period} does not tile a {_text(grid)} grid")
    offset = torch.randint(0, period, (2, batch, 1), generator=generator, device=generator.device)
    offset = offset if shift else torch.zeros_like(offset)
    rows, columns = (
        torch.arange(length, device=generator.device) % period == start
        for length, start in zip(grid, offset, strict=True)
    )
    return ~(rows[:, :, None] & columns[:, None, :])


def resize_mask(mask: Tensor, grid: Grid, rule: Literal["any", "all"] = "any") -> Tensor:
    """`mask` [B, Gh, Gw] on another grid of the same image.

    A finer cell is as the cell it lies in. A coarser cell is hidden where any cell in it is, so that
    nothing hidden ever counts as visible; with rule "all", only where all are.

    Raises:
        InputError: along some side, neither grid is a multiple of the other.
    """
    for axis, length in enumerate(grid, start=1):
        size = mask.shape[axis]
        if length % size == 0:
            mask = mask.repeat_interleave(length // size, dim=axis)
        elif size % length == 0:
            cells = mask.unflatten(axis, (length, size // length))
            mask = cells.any(axis + 1) if rule == "any" else cells.all(axis + 1)
        else:
            raise InputError(
                f"a mask of {_text(mask.shape[1:])} cells does not fit a {_text(grid)} grid: neither is a multiple "
                "of the other; change the mask's patch size"
            )
    return mask


def mean_hidden(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, h, w] over all hidden cells of the batch together; 0 where none is hidden."""
    hidden = resize_mask(mask, values.shape[1:])
    return (values * hidden).sum() / hidden.sum().clamp(min=1)


def _blocks(
    batch: int,
    grid: Grid,
    count: int,
    generator: torch.Generator,
    min_block: int,
    max_block: int,
    aspect: tuple[float, float],
) -> Tensor:
    """Block masks of a whole batch at once: each round adds to every open sample the first rectangle that fits."""
    device, (rows, columns) = generator.device, grid
    mask = torch.zeros(batch, rows, columns, dtype=torch.bool, device=device)
    missing = torch.full((batch, 1), count, device=device)
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    while bool((missing > 0).any()):
        room = missing.clamp(max=max_block)
        draws = torch.rand(4, batch, ATTEMPTS, generator=generator, device=device)
        area = min_block + (room - min_block) * draws[0]
        ratio = (log_low + (log_high - log_low) * draws[1]).exp()
        height, width = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (height < rows) & (width < columns)
        height, width = height.clamp(max=rows), width.clamp(max=columns)
        top = (draws[2] * (rows - height + 1)).long().minimum(rows - height)
        left = (draws[3] * (columns - width + 1)).long().minimum(columns - width)
        added = height * width - _hidden_inside(mask, top, left, top + height, left + width)
        good = fits & (added > 0) & (added <= room)
        first = good.int().argmax(1, keepdim=True)
        top, left, height, width, added = (x.gather(1, first) for x in (top, left, height, width, added))
        block = _span(top, top + height, rows)[:, :, None] & _span(left, left + width, columns)[:, None, :]
        found = good.any(1, keepdim=True)
        mask |= block & found[:, :, None]
        missing = torch.where(found, missing - added, 0)
    return mask


def _hidden_inside(mask: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Hidden cells of each rectangle, [B, K], from sums over all upper left corners."""
    sums = F.pad(mask.long().cumsum(1).cumsum(2), (1, 0, 1, 0))
    width, sums = sums.shape[2], sums.flatten(1)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return sums.gather(1, row * width + column)

    return corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)


def _span(start: Tensor, stop: Tensor, length: int) -> Tensor:
    """[B, 1] bounds -> bool [B, length], True in [start, stop)."""
    index = torch.arange(length, device=start.device)
    return (index >= start) & (index < stop)


def _fill(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Hide random visible cells until each sample hides `count`."""
    cells = mask.flatten(1)
    noise = torch.rand(cells.shape, generator=generator, device=generator.device)
    rank = noise.masked_fill(cells, 2.0).argsort(dim=1).argsort(dim=1)
    missing = count - cells.sum(1, keepdim=True)
    return (cells | (rank < missing)).view_as(mask)


def _check_blocks(grid: Grid, count: int, min_block: int, max_block: int, aspect: tuple[float, float]) -> None:
    _checked_count(count, grid[0] * grid[1], f"a mask of {count} cells")
    if min_block < 1 or max_block < 1 or not 0 < aspect[0] <= aspect[1]:
        raise InputError(
            f"blocks of {min_block} to {max_block} cells with aspect {aspect[0]:g} to {aspect[1]:g} are impossible"
        )
    if min(min_block, max_block) > (grid[0] - 1) * (grid[1] - 1):
        raise InputError(f"no block of {min_block} cells fits inside a {_text(grid)} grid; lower the least block")


def _checked_count(hidden: int, cells: int, what: str) -> int:
    if not 0 < hidden < cells:
        raise InputError(f"{what} hides {'nothing' if hidden <= 0 else 'everything'} of {cells} cells")
    return hidden


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(0, 2**32, (), generator=generator, device=generator.device))


def _text(grid: Grid | torch.Size) -> str:
    return " x ".join(str(side) for side in grid)


def mask_grid(image_size: int, mask_patch_size: int, patch_size: int) -> Grid:
    """Cells of a mask whose patches have `mask_patch_size` px, for an encoder with patches of `patch_size` px.

    Raises:
        InputError: a mask patch does not tile the image, or cuts an encoder patch.
    """
    if image_size % mask_patch_size:
        raise InputError(f"method.mask_patch_size {mask_patch_size} px does not divide the image, {image_size} px")
    if mask_patch_size % patch_size:
        raise InputError(
            f"method.mask_patch_size {mask_patch_size} px is not a multiple of the encoder's patch, {patch_size} px"
        )
    return (image_size // mask_patch_size,) * 2
