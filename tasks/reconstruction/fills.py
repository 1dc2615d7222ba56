"""Which cells are masked, and fills for them that use visible pixels only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mimbench.api import Grid, Method, NotSupported, mask_at_pixels, patchify, unpatchify


def grid_of_masks(method: Method) -> Grid:
    """Rows and columns of the masks that `method` trains with; of the encoder's patches if it trains without masks."""
    try:
        cells = method.masked_cells(method.sample_mask(1, torch.Generator()))
    except NotSupported:
        cells = None
    return method.encoder.grid if cells is None else tuple(cells.shape[1:])


def masked_cells(grid: Grid, ratio: float) -> int:
    """Number of cells to mask at a mask ratio: at least one and, unless `ratio` is 1, not all."""
    cells = grid[0] * grid[1]
    return cells if ratio == 1 else min(max(round(ratio * cells), 1), cells - 1)


def mask_first(order: Tensor, grid: Grid, count: int) -> Tensor:
    """Mask the first cells of an order. Masks of the same order are nested.

    Args:
        order: cell indices int64 [B, Gh * Gw].
        grid: (Gh, Gw).
        count: number of cells to mask in each image.

    Returns:
        bool [B, Gh, Gw], True = masked.
    """
    mask = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return mask.scatter_(1, order[:, :count], True).unflatten(1, tuple(grid))


def mean_filled(images: Tensor, mask: Tensor) -> Tensor:
    """Images with the mean of the visible pixels, per image and channel, in place of masked pixels."""
    masked = mask_at_pixels(mask, images)
    visible = (~masked).sum((2, 3), keepdim=True)
    mean = images.masked_fill(masked, 0).sum((2, 3), keepdim=True) / visible.clamp(min=1)
    return torch.where(masked, mean, images)


def nearest_filled(images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Images with copies of the nearest visible cell in place of masked cells.

    A method that gets these images sees no masked pixel, but an estimate of the mean and contrast of masked patches,
    which MAE with normalised pixels needs. An image without visible cells becomes standard normal noise, since
    normalised pixels have mean 0 and standard deviation 1.

    Args:
        images: normalised [B, C, H, W].
        mask: bool [B, Gh, Gw], True = masked.
        generator: of the noise.
    """
    size = images.shape[-2] // mask.shape[1]
    patches = patchify(images, size).flatten(1, 2)
    source = torch.from_numpy(np.stack([_nearest_visible(cells) for cells in mask.cpu().numpy()])).to(images.device)
    filled = patches.gather(1, source.unsqueeze(-1).expand(-1, -1, patches.shape[-1])).unflatten(1, mask.shape[1:])
    filled = unpatchify(filled, size)
    all_masked = mask.flatten(1).all(1)
    if all_masked.any():
        noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
        filled = torch.where(all_masked[:, None, None, None], noise, filled)
    return torch.where(mask_at_pixels(mask, images), filled, images)


def _nearest_visible(masked: np.ndarray) -> np.ndarray:
    """Row-major index of the nearest visible cell for each cell of bool [Gh, Gw]; the cell's own if none is visible."""
    if masked.all():
        return np.arange(masked.size)
    from scipy.ndimage import distance_transform_edt  # slow to import

    rows, columns = distance_transform_edt(masked, return_distances=False, return_indices=True)
    return (rows.astype(np.int64) * masked.shape[1] + columns).ravel()
