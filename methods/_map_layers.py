"""Norms and projections of an encoder's maps before a decoder (SparK)."""

from __future__ import annotations

from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map [B, C, h, w]; `visible_only` recognises it by its name, which is timm's."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def map_norm(kind: str, dim: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(dim) if kind == "batch" else LayerNorm2d(dim)


def map_projection(dim: int, out_dim: int, level: int) -> nn.Module:
    """As officially: of the coarsest map one cell at a time, and nothing if it has the decoder's channels already."""
    if level:
        return nn.Conv2d(dim, out_dim, 3, padding=1)
    return nn.Identity() if dim == out_dim else nn.Conv2d(dim, out_dim, 1)
