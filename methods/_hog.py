"""Histograms of oriented gradients, the targets of MaskFeat and LocalMIM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hog(images: Tensor, bins: int, cell: int, bias: Tensor | None = None) -> Tensor:
    """Histograms of oriented gradients: float [B, C, H, W] -> [B, C, bins, H / cell, W / cell], not normalised.

    Gradients are Sobel's, the image mirrored at its edges. Each pixel adds its gradient's length to one bin, that of
    its direction in [0, 180) degrees, which is counted from the vertical.

    A convolution per channel computes the gradients, as in the official code. If one is exactly vertical, rounding
    chooses between the first and the last bin, and another order of the same sums would choose differently.

    bias: two numbers that are added to the horizontal and the vertical gradients.
    """
    channels = images.shape[1]
    # Rows 1 0 -1, 2 0 -2 and 1 0 -1, computed on the device: a copy from the host would wait for it.
    step = 1 - torch.arange(3, device=images.device).to(images.dtype)
    sobel = ((2 - step.abs())[:, None] * step).expand(channels, 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    dx, dy = F.conv2d(padded, sobel, groups=channels), F.conv2d(padded, sobel.mT, groups=channels)
    if bias is not None:
        dx, dy = dx + bias[0], dy + bias[1]
    length = torch.stack((dx, dy), -1).norm(dim=-1)
    direction = (torch.atan2(dx, dy) / math.pi * bins).floor() % bins
    # One bin at a time: a scatter over all would hold `bins` copies of the batch.
    histograms = [_cell_sums(torch.where(direction == index, length, 0.0), cell) for index in range(bins)]
    return torch.stack(histograms, 2)


class Histograms(nn.Module):
    """Images [B, C, H, W] -> histograms [B, N, C * bins] of squares, row by row, each channel's of length 1."""

    bias: Tensor | None

    def __init__(self, bins: int, cell: int, *, random_bias: bool = False) -> None:
        super().__init__()
        self.bins, self.cell = bins, cell
        # torch's initial bias of a convolution with 3 x 3 weights, which the official code leaves in.
        self.register_buffer("bias", torch.empty(2).uniform_(-1 / 3, 1 / 3) if random_bias else None)

    def forward(self, images: Tensor) -> Tensor:
        histograms = F.normalize(hog(images, self.bins, self.cell, self.bias), dim=2)
        return histograms.flatten(1, 2).flatten(2).transpose(1, 2)


def _cell_sums(values: Tensor, cell: int) -> Tensor:
    return values.unflatten(3, (-1, cell)).unflatten(2, (-1, cell)).sum((3, 5))
