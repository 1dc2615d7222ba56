"""Masks on grids: their size, their resizing, and what the masked or visible cells hold."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mimbench.errors import InputError
from mimbench.shared_batch import mean_over_shares

Grid = tuple[int, ...]
"""Cells of a mask per axis: rows and columns, (Gh, Gw), or frames, rows and columns of a clip, (Gt, Gh, Gw)."""


def mask_grid(image_size: int, mask_patch_size: int, patch_size: int) -> Grid:
    """Grid of a mask whose patches have `mask_patch_size` px, for an encoder with patches of `patch_size` px.

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


def resize_mask(mask: Tensor, grid: Grid, rule: Literal["any", "all"] = "any") -> Tensor:
    """Resize a mask to another grid of the same image or clip.

    Args:
        mask: bool [B, *cells], with as many axes of cells as `grid` has.
        grid: the new (Gh, Gw) or (Gt, Gh, Gw). A finer cell has the value of the cell that it lies in.
        rule: "any": a coarser cell is masked if any cell in it is, so that nothing masked ever counts as visible.
            "all": only if all of them are.

    Raises:
        InputError: along an axis, neither grid is a multiple of the other, or their numbers of axes differ.
    """
    if mask.ndim != 1 + len(grid):
        raise InputError(f"a mask of {grid_text(mask.shape[1:])} cells has other axes than a {grid_text(grid)} grid")
    for axis, length in enumerate(grid, start=1):
        size = mask.shape[axis]
        if length % size == 0:
            mask = mask.repeat_interleave(length // size, dim=axis)
        elif size % length == 0:
            cells = mask.unflatten(axis, (length, size // length))
            mask = cells.any(axis + 1) if rule == "any" else cells.all(axis + 1)
        else:
            raise InputError(
                f"a mask of {grid_text(mask.shape[1:])} cells does not fit a {grid_text(grid)} grid: neither is a "
                "multiple of the other; change the mask's patch size"
            )
    return mask


def mask_at_pixels(mask: Tensor, images: Tensor) -> Tensor:
    """A mask bool [B, Gh, Gw] at the size of the images [B, C, H, W]: bool [B, 1, H, W].

    Of clips [B, C, T, H, W] and a mask [B, Gt, Gh, Gw] it is [B, 1, T, H, W].
    """
    return resize_mask(mask, images.shape[2:]).unsqueeze(1)


def visible_indices(mask: Tensor, count: int | None = None) -> Tensor:
    """Row-major indices of the visible cells, rising: int64 [B, K].

    Args:
        mask: bool [B, *cells].
        count: K, if it is known beforehand. On an accelerator it is not checked, which saves a synchronisation.

    Raises:
        InputError: samples have different numbers of visible cells (`block_mask` unless exact), or not `count`.
    """
    masked = mask.flatten(1)
    if count is None or mask.device.type == "cpu":
        counts = (~masked).sum(1)
        expected = counts[0] if count is None else count
        if bool((counts != expected).any()):
            raise InputError("samples mask different numbers of cells; use a mask with an exact count")
        count = int(expected)
    # A stable sort of 0 (visible) and 1 (masked) puts the visible cells first, in row-major order.
    return masked.to(torch.uint8).argsort(dim=1, stable=True)[:, :count]


def replace_masked(tokens: Tensor, mask: Tensor, token: Tensor) -> Tensor:
    """Patch tokens with a mask token in place of each masked one.

    Args:
        tokens: [B, h, w, D], or [B, T', h, w, D] of clips.
        mask: bool [B, *cells] on any grid with the axes of the tokens, True = masked. A patch that it touches counts as
            masked.
        token: [1, 1, 1, D].
    """
    masked = resize_mask(mask, tokens.shape[1:-1]).unsqueeze(-1)
    return torch.where(masked, token.to(tokens.dtype), tokens)


def repeat_per_mask(values: Tensor, masks: Tensor) -> Tensor:
    """Repeat what belongs to an image for each of its masks: [B, ...] -> [B * M, ...].

    Several masks per image then share one embedding, as in data2vec 2.0 (arXiv:2212.07525).

    Args:
        values: [B, ...], such as tokens or targets.
        masks: [B * M, ...], such as masks or indices of visible patches; rows i * M to i * M + M - 1 belong to image i.

    Raises:
        InputError: the number of masks is not a multiple of the number of images.
    """
    if not len(values) or len(masks) % len(values):
        raise InputError(f"{len(masks)} masks do not divide among {len(values)} images; draw the same number per image")
    return values.repeat_interleave(len(masks) // len(values), 0)


def mean_over_masked(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, h, w] or [B, T', h, w] over all masked cells of the batch together; 0 if none is masked.

    If processes share the batch, the mean of their results is the mean over all its masked cells.

    Args:
        values: one number per cell. Average the error over channels first.
        mask: bool [B, *cells] on any grid with the axes of `values`, True = masked.

    Raises:
        ValueError: `values` has other dimensions.
    """
    if values.ndim != mask.ndim:
        axes = "T', h, w" if mask.ndim == 4 else "h, w"
        raise ValueError(f"mean_over_masked needs values [B, {axes}], one per cell; these are {list(values.shape)}")
    masked = resize_mask(mask, values.shape[1:])
    return (values * masked).sum() / mean_over_shares(masked.sum(), least=1)


def check_count(masked: int, cells: int, what: str) -> int:
    """Return the number of masked cells. Raises InputError: it leaves no cell masked, or none visible."""
    if not 0 < masked < cells:
        raise InputError(f"{what} masks {'nothing' if masked <= 0 else 'everything'} of {cells} cells")
    return masked


def require_two_axes(grid: Grid, what: str) -> None:
    """Raise InputError unless the grid has rows and columns alone. what: the mask that needs that, for the message."""
    if len(grid) != 2:
        raise InputError(
            f"{what} needs a grid of rows and columns, not {grid_text(grid)}; clips take random, tube or cuboid masks"
        )


def spans(start: Tensor, stop: Tensor, length: int) -> Tensor:
    """Bounds [B, 1] -> bool [B, length], True in [start, stop)."""
    index = torch.arange(length, device=start.device)
    return (index >= start) & (index < stop)


def grid_text(grid: Grid | torch.Size) -> str:
    """A grid in messages: "14 x 14"."""
    return " x ".join(str(length) for length in grid)
