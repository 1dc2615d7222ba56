"""A decoder of visible tokens that predicts at a finer or coarser grid than that of the patches (LocalMIM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mimbench.api import Encoder, InputError, init_xavier, sincos_positions, transformer_blocks
from mimbench_methods._places import put_at


class ScaleDecoder(nn.Module):
    """Predicts histograms from one layer's visible tokens. Convolutions keep torch's initial weights, as officially."""

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        outputs: int,
        doublings: int,
    ) -> None:
        """Build the decoder.

        Args:
            outputs: channels of a prediction.
            doublings: log2 of the side of a patch over that of a place; -1: a place has the side of two patches.

        Raises:
            InputError: `num_heads` does not divide `dim`, or `dim` is not a multiple of 4.
        """
        super().__init__()
        self.grid, self.prefix = encoder.grid, encoder.num_prefix_tokens
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.embed = nn.Linear(encoder.out_dim, dim)
        self.register_buffer("positions", sincos_positions(encoder.grid, dim)[:, 1:], persistent=False)
        self.blocks = transformer_blocks(dim, depth, num_heads, mlp_ratio)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        init_xavier(self)
        self.pred = _head(dim, outputs, doublings)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Tokens [B, P + K, D] of the patches keep [B, K] -> [B, N, outputs], row by row."""
        x = self.embed(x)
        grid = put_at(keep, x[:, self.prefix :], self.mask_token, self.positions.shape[1])
        x = self.norm(self.blocks(torch.cat((x[:, : self.prefix], grid + self.positions), 1)))
        return self.pred(x[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)).flatten(2).transpose(1, 2)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map [B, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _head(dim: int, outputs: int, doublings: int) -> nn.Sequential:
    """From a map of patches to one of squares whose side is a patch / 2^doublings."""
    layers: list[nn.Module] = [nn.AvgPool2d(2)] if doublings < 0 else []
    for number in range(doublings):
        layers += [_ChannelNorm(dim, eps=1e-6), nn.GELU()] if number else []
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, 2))
        dim //= 2
    return nn.Sequential(*layers, nn.Conv2d(dim, outputs, 1))


def count_doublings(cell: int, encoder: Encoder) -> int:
    """How often a patch is halved to the side `cell` px; -1: it is doubled.

    Raises:
        InputError: another factor than a power of two, a larger square than two patches, or one that cuts the image.
    """
    doublings = round(math.log2(encoder.patch_size / cell)) if cell > 0 else 0
    if doublings < -1 or cell * 2.0**doublings != encoder.patch_size or encoder.image_size % cell:
        raise InputError(
            f"method.cells: squares of {cell} px do not suit patches of {encoder.patch_size} px in an image of "
            f"{encoder.image_size} px; choose a patch times or over a power of two, at most two patches, that divides "
            "the image"
        )
    return doublings
