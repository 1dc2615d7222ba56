"""What methods share that predict the pixels of the cells of an encoder's last map, with a light decoder (GreenMIM,
MixMIM)."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    MaskRatioConfig,
    Method,
    at_least_float32,
    check_mask_ratios,
    init_xavier,
    patchify,
    sincos_positions,
    transformer_blocks,
)
from mimbench_methods._normalised_patches import NOTE, fill_masked, normalised_patches


class CellDecoderConfig(MaskRatioConfig):
    """Masked cells and the decoder that predicts them; the defaults are those of the official MixMIM-B."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Fraction of the cells of the encoder's last map that is masked."""
    norm_pixels: bool = True
    """Predict the pixels of each cell normalised by their own mean and variance."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=0)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)


class CellDecoder(Method):
    """A method with a decoder over the cells of the encoder's last map. A mask has the grid of these cells."""

    eps: ClassVar[float]
    """Added to the variance in each LayerNorm of the decoder."""
    Config = CellDecoderConfig
    config: CellDecoderConfig
    positions: Tensor

    def __init__(self, config: CellDecoderConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_positions(self.grid, dim)[:, 1:], persistent=False)
        self.blocks = transformer_blocks(
            dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, eps=self.eps
        )
        self.norm = nn.LayerNorm(dim, eps=self.eps)
        self.head = nn.Linear(dim, encoder.stride**2 * encoder.in_channels)
        init_xavier(self)

    @classmethod
    def masks_only(cls, config: CellDecoderConfig, encoder: Encoder) -> Self:
        """Without the decoder, whose blocks are slow to import."""
        method = cls.__new__(cls)
        Method.__init__(method, config, encoder)
        return method

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the encoder's last map."""
        return (self.encoder.image_size // self.encoder.stride,) * 2

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, stride * stride * C], ordered row, column, channel."""
        if self.config.norm_pixels:
            return normalised_patches(images, self.encoder.stride)
        return patchify(at_least_float32(images), self.encoder.stride)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and variance of each masked cell."""
        cells = self.predict(images, mask)
        return fill_masked(images, mask, cells, self.encoder.stride, normalised=self.config.norm_pixels)

    @property
    def reconstruction_note(self) -> str:
        return NOTE if self.config.norm_pixels else ""

    def decode(self, x: Tensor) -> Tensor:
        """Projected tokens [B, h * w, decoder_dim], mask tokens among them -> pixels [B, h, w, stride * stride * C]."""
        return self.head(self.norm(self.blocks(x + self.positions))).unflatten(1, self.grid)
