"""Teachers of VQ-KD: what its decoder predicts at each patch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mimbench.api import CLIPTower, InputError, patchify, read_weights
from mimbench_methods._hog import hog


class HOGTeacher(nn.Module):
    """Histograms of oriented gradients: a stand-in that needs no weights, and knows nothing but pixels.

    A constant is added to each patch's histograms, so that a flat patch has a direction, too.
    """

    bins = 9
    constant = 0.1

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.cell = patch_size // 2 if patch_size % 2 == 0 else patch_size
        self.dim = self.bins * (patch_size // self.cell) ** 2 + 1

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, 3, H, W] -> [B, h, w, dim]."""
        histograms = hog(pixels.mean(1, keepdim=True), self.bins, self.cell)[:, 0] / self.cell**2
        patches = patchify(histograms, self.patch_size // self.cell)
        return torch.cat((patches, torch.full_like(patches[..., :1], self.constant)), -1)


def read_clip(path: Path, *, grid: int, quick_gelu: bool) -> CLIPTower:
    """CLIP's image tower from a file. Raises InputError: it is no such file."""
    try:
        return CLIPTower(read_weights(path).state, grid=grid, quick_gelu=quick_gelu)
    except InputError as error:
        raise InputError(f"method.vqkd.clip, {path}: {error}") from error
