"""I-JEPA's masks: blocks to predict, and one large block of context without them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, grid_text, require_two_axes, spans
from mimbench.masks.host import host_generator, to_device
from mimbench.masks.official import TRIES, draw_seed, torch_multi_blocks
from mimbench.shared_batch import current_share, take_rows

Range = tuple[float, float]


@dataclass(frozen=True)
class MultiBlockMask:
    """Cells of a batch by row-major index. All samples have the same number of cells of each kind.

    Attributes:
        context: int64 [B, K], rising: the cells that the encoder sees.
        targets: int64 [M, B, T], rising: the cells of each of M blocks. Blocks may overlap each other.
        grid: (Gh, Gw).
    """

    context: Tensor
    targets: Tensor
    grid: Grid

    def masked(self) -> Tensor:
        """The cells that the encoder does not see: bool [B, Gh, Gw], True = masked."""
        cells = self.context.new_ones(len(self.context), self.grid[0] * self.grid[1], dtype=torch.bool)
        return cells.scatter(1, self.context, False).unflatten(1, self.grid)


def multi_block_mask(
    batch: int,
    grid: Grid,
    generator: torch.Generator,
    *,
    targets: int = 4,
    target_scale: Range = (0.15, 0.2),
    target_aspect: Range = (0.75, 1.5),
    context_scale: Range = (0.85, 1.0),
    min_context: int = 11,
    allow_overlap: bool = False,
    rng: Literal["torch", "official"] = "torch",
) -> MultiBlockMask:
    """I-JEPA's multi-block masks (arXiv:2301.08243, section 3): target blocks, and a context block without their cells.

    Each call draws one size of target block and one size of context block; each sample draws its places. As in the
    official code (facebookresearch/ijepa@52c1ae95, src/masks/multiblock.py), no block reaches the last row or column,
    a context with too few cells is drawn again, and after 20 such draws it may share cells with the last target, then
    with the last two, and so on. The contexts of a batch are cut to the shortest, from their end.

    Args:
        targets: M, the number of target blocks.
        target_scale: least and greatest area of a target block, as a fraction of the grid.
        target_aspect: least and greatest height / width of a target block.
        context_scale: least and greatest area of the context block, which is square on a square grid.
        min_context: least number of cells of a context.
        allow_overlap: the context keeps the cells that it shares with targets.
        rng: "official" follows the official random stream, seeded by `generator`; "torch" has the same distribution,
            a whole batch at a time.

    Raises:
        InputError: a range is impossible, or a block of a possible size has no cell, or a context has too few.
    """
    require_two_axes(grid, "a multi-block mask")
    if targets < 1 or min_context < 1:
        raise InputError(
            f"a multi-block mask needs one target and one cell of context or more, not {targets} and {min_context}"
        )
    check_sizes(grid, target_scale, target_aspect, context_scale, min_context)
    share = current_share()
    batch *= share.processes if share else 1  # contexts are cut to the shortest of all processes
    if rng == "official":
        # Two streams, as in the official code: the sizes are common to all workers of a loader, the places are not.
        sizes, places = (torch.Generator().manual_seed(draw_seed(generator)) for _ in range(2))
        target, context = draw_sizes(grid, sizes, target_scale, target_aspect, context_scale)
        chosen, seen = torch_multi_blocks(batch, grid, targets, target, context, min_context, allow_overlap, places)
    else:
        host = host_generator(generator)
        target, context = draw_sizes(grid, host, target_scale, target_aspect, context_scale)
        chosen = torch.stack([_place(batch, grid, target, host) for _ in range(targets)])
        seen = _draw_contexts(chosen, context, min_context, allow_overlap, host)
    fewest = int(seen.sum((1, 2)).min())
    visible, masked = _first_cells(seen, fewest), _first_cells(chosen, target[0] * target[1])
    visible, masked = take_rows(visible), take_rows(masked, axis=1)
    return MultiBlockMask(to_device(visible, generator.device), to_device(masked, generator.device), grid)


def draw_sizes(
    grid: Grid, generator: torch.Generator, target_scale: Range, target_aspect: Range, context_scale: Range
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of a target block, then of a context block: one random number each, as in the official code."""
    draws = [float(torch.rand(1, generator=generator, device=generator.device)) for _ in range(2)]
    return block_size(grid, draws[0], target_scale, target_aspect), block_size(
        grid, draws[1], context_scale, (1.0, 1.0)
    )


def block_size(grid: Grid, draw: float, scale: Range, aspect: Range) -> tuple[int, int]:
    """(rows, columns) of a block; the one number `draw`, in [0, 1), sets both its area and its aspect.

    A side is at most one cell shorter than the grid.
    """
    area = int(grid[0] * grid[1] * (scale[0] + draw * (scale[1] - scale[0])))
    ratio = aspect[0] + draw * (aspect[1] - aspect[0])
    lengths = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(lengths[0], grid[0] - 1), min(lengths[1], grid[1] - 1)


@lru_cache(maxsize=64)
def check_sizes(grid: Grid, target_scale: Range, target_aspect: Range, context_scale: Range, min_context: int) -> None:
    """Raise InputError if a block of some possible size has no cell, or a context has too few."""
    for name, (low, high), most in (
        ("target_scale", target_scale, 1.0),
        ("target_aspect", target_aspect, math.inf),
        ("context_scale", context_scale, 1.0),
    ):
        if not 0 < low <= high <= most:
            raise InputError(f"{name} ({low:g}, {high:g}) is impossible; give two rising numbers above 0")
    draws = [step / 256 for step in range(257)]
    for name, scale, aspect, least in (
        ("target_scale", target_scale, target_aspect, 1),
        ("context_scale", context_scale, (1.0, 1.0), min_context),
    ):
        cells = min(math.prod(block_size(grid, draw, scale, aspect)) for draw in draws)
        if cells < least:
            raise InputError(
                f"a block of {name} ({scale[0]:g}, {scale[1]:g}) has {cells} cells of a {grid_text(grid)} grid, and "
                f"{least} are needed; raise {name}" + (" or lower min_context" if least > 1 else "")
            )


def _place(batch: int, grid: Grid, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One block of `size` per sample at a random place, never in the last row or column: bool [batch, Gh, Gw]."""
    starts = [
        torch.randint(0, length - side, (batch, 1), generator=generator, device=generator.device)
        for length, side in zip(grid, size, strict=True)
    ]
    rows, columns = (spans(start, start + side, length) for start, side, length in zip(starts, size, grid, strict=True))
    return rows[:, :, None] & columns[:, None, :]


def _draw_contexts(
    targets: Tensor, size: tuple[int, int], least: int, allow_overlap: bool, generator: torch.Generator
) -> Tensor:
    """A context per sample, bool [B, Gh, Gw], with `least` cells or more. targets: bool [M, B, Gh, Gw]."""
    count, batch, *grid = targets.shape
    seen = torch.zeros(batch, *grid, dtype=torch.bool, device=targets.device)
    missing = torch.ones(batch, dtype=torch.bool, device=targets.device)
    rounds = 0
    while bool(missing.any()):
        avoided = 0 if allow_overlap else max(count - rounds // TRIES, 0)
        drawn = _place(batch, (grid[0], grid[1]), size, generator) & ~targets[:avoided].any(0)
        seen = torch.where(missing[:, None, None], drawn, seen)
        missing &= seen.sum((1, 2)) < least
        rounds += 1
    return seen


def _first_cells(cells: Tensor, count: int) -> Tensor:
    """bool [..., Gh, Gw] -> row-major indices of the first `count` True cells, int64 [..., count]."""
    return (~cells).flatten(-2).to(torch.uint8).argsort(dim=-1, stable=True)[..., :count]
