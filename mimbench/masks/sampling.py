"""Random, square, grid and tube masks."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, check_count, grid_text, require_two_axes, spans
from mimbench.masks.official import draw_seed, numpy_random_mask, numpy_tube_mask, official_guided_mask
from mimbench.shared_batch import draw_rows, draws_rows, spread_rows, take_rows

Rounding = Literal["ceil", "floor", "mae", "spark"]
Noise = Literal["uniform", "normal"]


def masked_count(cells: int, ratio: float, rounding: Rounding = "ceil") -> int:
    """Number of masked cells among `cells` at a mask ratio.

    Args:
        ratio: share of masked cells, in (0, 1).
        rounding: "ceil": up, as SimMIM does. "floor": down. "mae": the number of visible cells is rounded down, as
            MAE does. "spark": the number of visible cells is rounded to the nearest, as SparK does.

    Raises:
        InputError: the ratio is not in (0, 1), or so near to an end that no cell is masked, or none visible.
    """
    if not 0 < ratio < 1:
        raise InputError(f"mask ratio {ratio:g} is not inside (0, 1)")
    if rounding == "mae":
        masked = cells - int(cells * (1 - ratio))
    elif rounding == "spark":
        masked = cells - round(cells * (1 - ratio))
    else:
        masked = math.ceil(cells * ratio) if rounding == "ceil" else int(cells * ratio)
    return check_count(masked, cells, f"mask ratio {ratio:g}")


@draws_rows
def random_mask(
    batch: int,
    grid: Grid,
    ratio: float,
    generator: torch.Generator,
    *,
    rounding: Rounding = "ceil",
    rng: Literal["torch", "official"] = "torch",
    noise: Noise = "uniform",
) -> Tensor:
    """Mask `masked_count` cells of each sample, chosen uniformly.

    Args:
        rng: "official" draws from numpy as SimMIM does, seeded by `generator`; "torch" is MAE's own stream.
        noise: whose order decides. "normal" is FCMAE's own stream; its masks have the same distribution.

    Returns:
        bool [batch, *grid].
    """
    cells = math.prod(grid)
    masked = masked_count(cells, ratio, rounding)
    if rng == "official":
        masks = numpy_random_mask(batch, grid, masked, np.random.RandomState(draw_seed(generator)))
        return masks.to(generator.device)
    visible = random_order(batch, grid, generator, noise)[:, : cells - masked]
    mask = torch.ones(batch, cells, dtype=torch.bool, device=generator.device)
    return mask.scatter_(1, visible, False).unflatten(1, grid)


@draws_rows
def tube_mask(
    batch: int,
    grid: Grid,
    ratio: float,
    generator: torch.Generator,
    *,
    rng: Literal["torch", "official"] = "torch",
) -> Tensor:
    """Mask the same random cells in every frame of a clip (VideoMAE, arXiv:2203.12602, section 3.2).

    Args:
        grid: (T, Gh, Gw).
        ratio: share of masked cells, rounded down.
        rng: "official" draws from numpy as VideoMAE does, seeded by `generator`; "torch" has the same distribution.

    Returns:
        bool [batch, T, Gh, Gw].

    Raises:
        InputError: `grid` has no three lengths, or the ratio masks nothing or everything.
    """
    if len(grid) != 3:
        raise InputError(f"a tube mask needs a grid of time, rows and columns, not {grid_text(grid)}")
    frames, frame = grid[0], grid[1:]
    if rng == "official":
        masked = masked_count(frame[0] * frame[1], ratio, "floor")
        masks = numpy_tube_mask(batch, frame, masked, np.random.RandomState(draw_seed(generator)))
        masks = masks.to(generator.device)
    else:
        masks = random_mask(batch, frame, ratio, generator, rounding="floor")
    return masks.unsqueeze(1).expand(-1, frames, -1, -1).contiguous()


def guided_mask(
    scores: Tensor,
    masked: int,
    guided: int,
    generator: torch.Generator,
    *,
    rng: Literal["torch", "official"] = "torch",
) -> Tensor:
    """Mask the cells of the highest scores, and random ones of the others (HPM, arXiv:2304.05919, section 3.3).

    Args:
        scores: [B, Gh, Gw].
        masked: cells to mask in each sample.
        guided: how many of these have the highest scores.
        rng: "official" draws as HPM does, seeded by `generator`; "torch" has the same distribution.

    Returns:
        bool [B, Gh, Gw].

    Raises:
        InputError: nothing or everything would be masked, or `guided` is not in [0, masked].
    """
    flat = scores.flatten(1)
    check_count(masked, flat.shape[1], f"a mask of {masked} cells")
    if not 0 <= guided <= masked:
        raise InputError(f"{guided} guided cells are not among {masked} masked ones")
    if rng == "official":
        seed = draw_seed(generator)
        # What it draws for an image does not depend on the scores, so other processes' scores are not needed.
        masks = official_guided_mask(
            spread_rows(flat.cpu()), masked, guided, np.random.RandomState(seed), torch.Generator().manual_seed(seed)
        )
        return take_rows(masks).to(scores.device).view_as(scores)
    hardest = flat.argsort(1, descending=True)[:, :guided]
    noise = draw_rows(
        lambda rows: torch.rand(rows, flat.shape[1], generator=generator, device=generator.device), len(flat)
    )
    # Noise is below 1, so that guided cells (2.0) rank before all others.
    chosen = noise.scatter(1, hardest, 2.0).argsort(1, descending=True)[:, :masked]
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, chosen, True).view_as(scores)


@draws_rows
def random_order(batch: int, grid: Grid, generator: torch.Generator, noise: Noise = "uniform") -> Tensor:
    """Cells of `grid` in random order, int64 [batch, N]; at a mask ratio of MAE, the first are the visible ones.

    This is `ids_shuffle` of facebookresearch/mae@efb2a806, draw for draw; its argsort is `ids_restore`.
    """
    draw = torch.randn if noise == "normal" else torch.rand
    return draw(batch, math.prod(grid), generator=generator, device=generator.device).argsort(dim=1)


@draws_rows
def square_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator, *, centred: bool = False) -> Tensor:
    """Mask one square in each sample, at a random place (SimMIM, table 1) or in the middle.

    Its side is the whole number of cells whose area comes nearest to `ratio`.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: the ratio is not in (0, 1), the square is larger than the grid or covers it, or the grid has frames.
    """
    require_two_axes(grid, "a square mask")
    if not 0 < ratio < 1:
        raise InputError(f"mask ratio {ratio:g} is not inside (0, 1)")
    side = max(1, round(math.sqrt(ratio * grid[0] * grid[1])))
    if side > min(grid) or grid == (side, side):
        raise InputError(
            f"a square of {side} x {side} cells (mask ratio {ratio:g}) leaves nothing of a {grid_text(grid)} grid"
        )
    axes = []
    for length in grid:
        room = length - side
        # A centred mask draws too, so that the generator moves on in the same way.
        start = torch.randint(0, room + 1, (batch, 1), generator=generator, device=generator.device)
        start = torch.full_like(start, room // 2) if centred else start
        axes.append(spans(start, start + side, length))
    return axes[0][:, :, None] & axes[1][:, None, :]


@draws_rows
def grid_mask(batch: int, grid: Grid, generator: torch.Generator, *, period: int = 2, shift: bool = False) -> Tensor:
    """Keep one cell of each `period` x `period` visible and mask the rest (MAE, figure 6: 75 percent at 2).

    The visible cell is the upper left one; with `shift`, a random one for each sample.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: squares of `period` cells do not tile the grid, or it has frames.
    """
    require_two_axes(grid, "a grid mask")
    if period < 2 or grid[0] % period or grid[1] % period:
        raise InputError(f"a grid mask of period {period} does not tile a {grid_text(grid)} grid")
    offset = torch.randint(0, period, (2, batch, 1), generator=generator, device=generator.device)
    offset = offset if shift else torch.zeros_like(offset)
    rows, columns = (
        torch.arange(length, device=generator.device) % period == start
        for length, start in zip(grid, offset, strict=True)
    )
    return ~(rows[:, :, None] & columns[:, None, :])
