"""BEiT's block-wise masks, a whole batch at a time."""

from __future__ import annotations

import math
import random
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, check_count, grid_text, require_two_axes, spans
from mimbench.masks.host import host_generator, to_device
from mimbench.masks.official import ATTEMPTS, draw_seed, numpy_fill_up, python_block_mask
from mimbench.shared_batch import draws_rows


@draws_rows
def block_mask(
    batch: int,
    grid: Grid,
    count: int | Tensor,
    generator: torch.Generator,
    *,
    min_block: int = 16,
    max_block: int | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    exact: bool = False,
    retry: bool = False,
    rng: Literal["torch", "official"] = "torch",
) -> Tensor:
    """BEiT's block-wise masks (arXiv:2106.08254, algorithm 1): rectangles until `count` cells are masked.

    As in the official code, a sample has fewer masked cells than `count`, or even none, if ten rectangles in a row do
    not fit. A rectangle must be smaller than the grid along both axes.

    Args:
        count: most cells to mask in each sample; or float [batch], one number per sample, as iBOT has it; a CUDA
            device is not waited for if they are on the CPU. 0 masks nothing.
        min_block: least area of a rectangle, in cells, while that many are left to mask.
        max_block: most cells that one rectangle may add; None: all that are left.
        aspect: least and greatest height / width.
        exact: mask random cells in addition until each sample has `count`, which is a whole number then.
        retry: after ten rectangles that do not fit, try others until each sample has `count`, as CAE does. It is a
            whole number then.
        rng: "official" draws from Python's random as BEiT does, and what `exact` adds from numpy's as BEiT v2 does,
            both seeded by `generator`; "torch" has the same distribution, a whole batch at a time.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: no mask of this count, or no such block, fits the grid.
    """
    if isinstance(count, Tensor):
        if len(count) != batch:
            raise InputError(
                f"{len(count)} counts for {batch} masks; in a batch that processes share, draw both in draw_rows"
            )
        if exact or retry:
            raise InputError(f"{'exact' if exact else 'retry'}=True needs one count for all samples")
        most, counts = math.ceil(float(count.max())), count
    else:
        most, counts = count, torch.full((batch,), count, device="cpu")
    max_block = most if max_block is None else max_block
    if most > 0 or not isinstance(count, Tensor):
        _check_blocks(grid, most, min_block, max_block, aspect)
    if retry and not aspect[0] <= 1 <= aspect[1]:
        raise InputError(f"blocks with aspect {aspect[0]:g} to {aspect[1]:g} cannot fill single cells; include 1")
    if rng == "official":
        stream = random.Random(draw_seed(generator))
        options: dict[str, Any] = {"min_block": min_block, "max_block": max_block, "aspect": aspect, "retry": retry}
        masks = torch.cat([python_block_mask(1, grid, one, stream, **options) for one in counts.tolist()])
        if exact and not isinstance(count, Tensor):
            numpy_fill_up(masks, count, np.random.RandomState(draw_seed(generator)))
        return masks.to(generator.device)
    host = host_generator(generator)
    mask = _draw_blocks(grid, counts.to(host.device), host, min_block, max_block, aspect, retry)
    mask = mask if isinstance(count, Tensor) or not exact else _fill_up(mask, count, host)
    return to_device(mask, generator.device)


def _draw_blocks(
    grid: Grid,
    counts: Tensor,
    generator: torch.Generator,
    min_block: int,
    max_block: int,
    aspect: tuple[float, float],
    retry: bool,
) -> Tensor:
    """Each round adds one rectangle to every unfinished sample: the first of its ATTEMPTS draws that fits."""
    device, (rows, columns), batch = generator.device, grid, len(counts)
    mask = torch.zeros(batch, rows, columns, dtype=torch.bool, device=device)
    missing = counts.unsqueeze(1)
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    while bool((missing > 0).any()):
        room = missing.clamp(max=max_block)
        # All tensors from here on are [batch, ATTEMPTS]: area, aspect ratio, row and column of each draw.
        draws = torch.rand(4, batch, ATTEMPTS, generator=generator, device=device)
        area = min_block + (room - min_block) * draws[0]
        ratio = (log_low + (log_high - log_low) * draws[1]).exp()
        height, width = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (height < rows) & (width < columns)
        # Rectangles that do not fit are clamped so that their indices stay valid; `fits` rules them out below.
        height, width = height.clamp(max=rows), width.clamp(max=columns)
        top = (draws[2] * (rows - height + 1)).long().minimum(rows - height)
        left = (draws[3] * (columns - width + 1)).long().minimum(columns - width)
        added = height * width - _masked_inside(mask, top, left, top + height, left + width)
        is_valid = fits & (added > 0) & (added <= room)
        first = is_valid.int().argmax(1, keepdim=True)
        top, left, height, width, added = (x.gather(1, first) for x in (top, left, height, width, added))
        block = spans(top, top + height, rows)[:, :, None] & spans(left, left + width, columns)[:, None, :]
        has_block = is_valid.any(1, keepdim=True)
        mask |= block & has_block[:, :, None]
        # A sample for which no draw fits is finished, as in BEiT's code, or gets other draws, as in CAE's.
        missing = torch.where(has_block, missing - added, missing if retry else 0)
    return mask


def _masked_inside(mask: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Number of masked cells in each rectangle, [B, K], by a summed-area table."""
    sums = F.pad(mask.long().cumsum(1).cumsum(2), (1, 0, 1, 0))
    width, sums = sums.shape[2], sums.flatten(1)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return sums.gather(1, row * width + column)

    return corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)


def _fill_up(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Mask random visible cells until each sample has `count` masked cells."""
    cells = mask.flatten(1)
    noise = torch.rand(cells.shape, generator=generator, device=generator.device)
    # Noise is below 1, so that masked cells (2.0) rank after all visible ones.
    rank = noise.masked_fill(cells, 2.0).argsort(dim=1).argsort(dim=1)
    missing = count - cells.sum(1, keepdim=True)
    return (cells | (rank < missing)).view_as(mask)


def _check_blocks(grid: Grid, count: int, min_block: int, max_block: int, aspect: tuple[float, float]) -> None:
    require_two_axes(grid, "a block mask")
    check_count(count, grid[0] * grid[1], f"a mask of {count} cells")
    if min_block < 1 or max_block < 1 or not 0 < aspect[0] <= aspect[1]:
        raise InputError(
            f"blocks of {min_block} to {max_block} cells with aspect {aspect[0]:g} to {aspect[1]:g} are impossible"
        )
    if min(min_block, max_block) > (grid[0] - 1) * (grid[1] - 1):
        raise InputError(f"no block of {min_block} cells fits inside a {grid_text(grid)} grid; lower min_block")
