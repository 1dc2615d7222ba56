"""Images as patches, clips as cubes of pixels, and back."""

from __future__ import annotations

from torch import Tensor


def patchify(images: Tensor, size: int, tubelet: int = 1) -> Tensor:
    """[B, C, H, W] -> [B, H / size, W / size, size * size * C]; a patch is ordered row, column, channel (MAE).

    Clips [B, C, T, H, W] -> [B, T / tubelet, H / size, W / size, tubelet * size * size * C]; a cube of `tubelet` frames
    is ordered frame, row, column, channel (VideoMAE).
    """
    height, width = images.shape[-2:]
    cells = images.unflatten(-1, (width // size, size)).unflatten(-3, (height // size, size))
    if images.ndim == 4:
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3)
    cubes = cells.unflatten(2, (images.shape[2] // tubelet, tubelet))
    return cubes.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


def unpatchify(patches: Tensor, size: int, tubelet: int = 1) -> Tensor:
    """The inverse of `patchify`: [B, h, w, size * size * C] -> [B, C, h * size, w * size].

    Cubes [B, T', h, w, tubelet * size * size * C] -> [B, C, T' * tubelet, h * size, w * size].
    """
    if patches.ndim == 4:
        cells = patches.unflatten(3, (size, size, -1))
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    cubes = patches.unflatten(4, (tubelet, size, size, -1))
    return cubes.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6).flatten(4, 5).flatten(2, 3)
