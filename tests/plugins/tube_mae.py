"""VideoMAE in small (arXiv:2203.12602): encode the cubes outside of masked tubes, predict the pixels of the others."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Depth,
    Encoder,
    InputError,
    Method,
    init_truncated,
    mask_at_pixels,
    mean_over_masked,
    patchify,
    transformer_blocks,
    tube_mask,
    unpatchify,
    visible_indices,
)


class TubeMAEConfig(Config):
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Fraction of the cells of a frame that are masked, in all frames."""
    decoder_dim: int = Field(32, ge=4)
    decoder_depth: Depth = Field(1, ge=0)
    decoder_heads: int = Field(2, ge=1)


class TubeMAE(Method):
    """Masked autoencoder with tube masks; squared error on the masked pixels, which are not normalised."""

    name = "tube-mae"
    version = "1"
    encoder_needs = frozenset({"visible-only", "clips"})
    takes_clips = True
    Config = TubeMAEConfig
    config: TubeMAEConfig

    def __init__(self, config: TubeMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if len(encoder.grid) != 3:
            raise InputError("tube-mae needs clips; set input.frames to the frames of the data")
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(0.02 * torch.randn(1, math.prod(encoder.grid), dim))
        self.blocks = transformer_blocks(dim, config.decoder_depth, config.decoder_heads)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, encoder.tubelet * encoder.patch_size**2 * encoder.in_channels)
        init_truncated(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return tube_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """[B, T', h, w, pixels of a cube]."""
        return patchify(images, self.encoder.patch_size, self.encoder.tubelet)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        keep = visible_indices(mask)
        visible = self.project(self.encoder.forward_tokens(self.encoder.embed(images), keep).patches)
        tokens = self.token.to(visible.dtype).repeat(len(images), mask[0].numel(), 1)
        tokens = tokens.scatter(1, keep.unsqueeze(-1).expand_as(visible), visible) + self.position
        return self.head(self.norm(self.blocks(tokens))).unflatten(1, self.encoder.grid)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return mean_over_masked((prediction.float() - target).square().mean(-1), mask)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        pixels = unpatchify(self.predict(images, mask), self.encoder.patch_size, self.encoder.tubelet)
        return torch.where(mask_at_pixels(mask, images), pixels, images)
