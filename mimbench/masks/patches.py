"""Images as patches, and back."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, size: int) -> Tensor:
    """[B, C, H, W] -> [B, H / size, W / size, size * size * C]; a patch is ordered row, column, channel (MAE)."""
    _, _, height, width = images.shape
    cells = images.unflatten(3, (width // size, size)).unflatten(2, (height // size, size))
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3)


def unpatchify(patches: Tensor, size: int) -> Tensor:
    """The inverse of `patchify`: [B, h, w, size * size * C] -> [B, C, h * size, w * size]."""
    cells = patches.unflatten(3, (size, size, -1))
    return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
