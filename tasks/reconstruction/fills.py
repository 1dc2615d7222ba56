"""Which cells are hidden, and what stands in their place: nothing of the truth."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from mimbench.api import Grid, Method, NotSupported, patchify, resize_mask, unpatchify


def mask_grid(method: Method) -> Grid:
    """Cells of the masks that `method` trains with; for one without masks, the encoder's patches."""
    try:
        return tuple(method.sample_mask(1, torch.Generator()).shape[1:])
    except NotSupported:
        return method.encoder.grid


def hidden_cells(grid: Grid, ratio: float) -> int:
    """The number of cells nearest to `ratio` of them; at least one is hidden and, unless `ratio` is 1, one visible."""
    cells = grid[0] * grid[1]
    return cells if ratio == 1 else min(max(round(ratio * cells), 1), cells - 1)


def hide_first(order: Tensor, grid: Grid, hidden: int) -> Tensor:
    """bool [B, Gh, Gw]: the first `hidden` cells of `order`, int64 [B, Gh * Gw], are hidden.

    Masks of one order are nested: what a lower ratio hides, a higher one hides too.
    """
    mask = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return mask.scatter_(1, order[:, :hidden], True).unflatten(1, tuple(grid))


def at_pixels(mask: Tensor, images: Tensor) -> Tensor:
    """[B, Gh, Gw] -> [B, 1, H, W]."""
    return resize_mask(mask, images.shape[-2:]).unsqueeze(1)


def mean_filled(images: Tensor, mask: Tensor) -> Tensor:
    """Hidden pixels get the mean of their image's visible ones, by channel."""
    hidden = at_pixels(mask, images)
    visible = (~hidden).sum((2, 3), keepdim=True)
    mean = images.masked_fill(hidden, 0).sum((2, 3), keepdim=True) / visible.clamp(min=1)
    return torch.where(hidden, mean, images)


def nearest_filled(images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Each hidden cell gets a copy of the nearest visible cell; where an image shows nothing, standard normal noise.

    So a method gets no hidden pixel, but an estimate of what MAE's normalised patches lack: their mean and contrast.
    With nothing visible, the estimate is the data's, whose normalised pixels have mean 0 and deviation 1.
    """
    size = images.shape[-2] // mask.shape[1]
    patches = patchify(images, size).flatten(1, 2)
    source = torch.from_numpy(np.stack([_nearest_visible(cells) for cells in mask.cpu().numpy()])).to(images.device)
    filled = patches.gather(1, source.unsqueeze(-1).expand(-1, -1, patches.shape[-1])).unflatten(1, mask.shape[1:])
    filled = unpatchify(filled, size)
    blind = mask.flatten(1).all(1)
    if blind.any():
        noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
        filled = torch.where(blind[:, None, None, None], noise, filled)
    return torch.where(at_pixels(mask, images), filled, images)


def _nearest_visible(hidden: np.ndarray) -> np.ndarray:
    """Row-major index of the nearest visible cell for each cell of bool [Gh, Gw]; its own where all are hidden."""
    if hidden.all():
        return np.arange(hidden.size)
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return (rows.astype(np.int64) * hidden.shape[1] + columns).ravel()
