"""Masks from patterns of noise in a file, such as ColorMAE's official ones (arXiv:2407.13036)."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.masks.grids import Grid, require_two_axes
from mimbench.masks.noise import mask_lowest
from mimbench.masks.sampling import Rounding, masked_count
from mimbench.shared_batch import draws_rows


@draws_rows
def stored_noise_mask(
    batch: int, grid: Grid, ratio: float, generator: torch.Generator, file: Path, *, rounding: Rounding = "ceil"
) -> Tensor:
    """Mask the cells whose value is lowest in a window of a stored pattern, `masked_count` of each sample.

    Each sample draws its pattern, the place of the window, and whether it is mirrored along each axis.

    Args:
        file: see `read_patterns`.

    Returns:
        bool [batch, Gh, Gw].

    Raises:
        InputError: as `read_patterns`; the grid is larger than a pattern or has frames; the ratio masks nothing or
            everything.
    """
    require_two_axes(grid, "a mask of stored noise")
    masked = masked_count(math.prod(grid), ratio, rounding)
    device = generator.device
    patterns = read_patterns(file, device)
    if any(length > side for length, side in zip(grid, patterns.shape[1:], strict=True)):
        raise InputError(
            f"the patterns of noise in {file} are {patterns.shape[1]} x {patterns.shape[2]}, smaller than the "
            f"{grid[0]} x {grid[1]} patches of a mask: choose a file with larger ones"
        )
    pattern = torch.randint(len(patterns), (batch, 1, 1), generator=generator, device=device)
    rows, columns = (
        _windows(batch, length, side, generator) for length, side in zip(grid, patterns.shape[1:], strict=True)
    )
    return mask_lowest(patterns[pattern, rows[:, :, None], columns[:, None, :]], masked)


@lru_cache(maxsize=4)
def read_patterns(file: Path, device: torch.device) -> Tensor:
    """The patterns in a file of numpy, .npz or .npy, whose first array is [patterns, rows, columns].

    Raises:
        InputError: the file is not readable, or holds something else.
    """
    advice = "set noise_file to a .npz or .npy file with patterns of noise [patterns, rows, columns]"
    try:
        content = np.load(file, allow_pickle=False)
        patterns = content[content.files[0]] if isinstance(content, np.lib.npyio.NpzFile) else content
    except (OSError, ValueError, IndexError, EOFError, BadZipFile) as error:
        raise InputError(f"{file} cannot be read as numpy's arrays ({error}): {advice}") from error
    if patterns.ndim != 3 or not patterns.size or patterns.dtype.kind not in "fiu" or not np.isfinite(patterns).all():
        raise InputError(f"{file} holds an array {list(patterns.shape)} of {patterns.dtype}: {advice}")
    return torch.from_numpy(patterns.astype(np.float32)).to(device)


def _windows(batch: int, length: int, side: int, generator: torch.Generator) -> Tensor:
    """[batch, length]: a random window of each sample along an axis with `side` cells, forwards or backwards."""
    start = torch.randint(side - length + 1, (batch, 1), generator=generator, device=generator.device)
    mirrored = torch.rand(batch, 1, generator=generator, device=generator.device) < 0.5
    cells = torch.arange(length, device=generator.device)
    return start + torch.where(mirrored, cells.flip(0), cells)
