"""A convolutional decoder over the grid of patches (data2vec 2.0)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import InputError, draw_rows

NOISE_ROWS = 64
"""Rows of noise that are drawn at once. On a CPU they are those of one draw for all rows."""


class ConvDecoder(nn.Module):
    """Grouped convolutions, each with a layer norm without weights, GELU and a residual, then a linear layer.

    After facebookresearch/fairseq@3d262bb, examples/data2vec/models/modalities/modules.py, Decoder2d.
    """

    def __init__(self, in_dim: int, dim: int, *, depth: int, kernel: int, groups: int) -> None:
        """
        Args:
            in_dim: channels of the input and of the output.
            dim: channels of the convolutions. If it is not `in_dim`, the first one has no residual.
            kernel: side of the convolutions, odd.

        Raises:
            InputError: `groups` does not divide both numbers of channels, or the kernel is even.
        """
        super().__init__()
        if in_dim % groups or dim % groups:
            raise InputError(
                f"method.decoder_groups {groups} does not divide the {in_dim} channels of the encoder and the {dim} of "
                "the decoder; choose a divisor of both"
            )
        if kernel % 2 == 0:
            raise InputError(f"method.decoder_kernel {kernel} is even; choose an odd number")
        self.convs = nn.ModuleList(
            nn.Conv2d(dim if index else in_dim, dim, kernel, padding=kernel // 2, groups=groups)
            for index in range(depth)
        )
        self.proj = nn.Linear(dim, in_dim)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, h, w, in_dim] -> [B, h, w, in_dim]."""
        x = patches
        for conv in self.convs:
            y = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            y = F.gelu(F.layer_norm(y, y.shape[-1:]))
            x = x + y if x.shape == y.shape else y
        return self.proj(x)


def fill_with_noise(patches: Tensor, places: Tensor, count: int, std: float) -> Tensor:
    """[B, count, D]: `patches` [B, K, D] at `places`, int64 [B, K], and normal noise everywhere else."""
    shape, device, kind = (count, patches.shape[-1]), patches.device, patches.dtype
    noise = draw_rows(
        lambda rows: torch.randn(rows, *shape, device=device, dtype=kind), len(patches), at_once=NOISE_ROWS
    )
    return (std * noise).scatter(1, places.unsqueeze(-1).expand_as(patches), patches)
