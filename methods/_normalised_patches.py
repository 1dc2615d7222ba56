"""Patches of pixels, each normalised by its own mean and variance: the target of MAE and of what follows it."""

from __future__ import annotations

import torch
from torch import Tensor

from mimbench.api import at_least_float32, mask_at_pixels, patchify, unpatchify

NOTE = "Mean and contrast of each masked patch are the true ones; only its structure is predicted."
"""For `Method.reconstruction_note`."""


def moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) standard deviation of each patch [..., pixels], shaped [..., 1]."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def normalised_patches(images: Tensor, size: int) -> Tensor:
    """[B, C, H, W] -> [B, H / size, W / size, size * size * C], ordered row, column, channel."""
    patches = patchify(at_least_float32(images), size)
    mean, std = moments(patches)
    return (patches - mean) / std


def fill_masked(images: Tensor, mask: Tensor, patches: Tensor, size: int, *, normalised: bool) -> Tensor:
    """Images with `patches` [B, h, w, size * size * C] in place of what is masked.

    Args:
        normalised: the patches are normalised, and brought back with the true mean and variance of each patch.
    """
    patches = patches.float()
    if normalised:
        mean, std = moments(patchify(at_least_float32(images), size))
        patches = patches * std + mean
    return torch.where(mask_at_pixels(mask, images), unpatchify(patches, size), images)
