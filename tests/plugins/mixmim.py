"""MixMIM (arXiv:2205.13137): the masked patches of an image show another image, and both are reconstructed.

Tokens of the two images attend to each other, which the original's encoder prevents.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Depth,
    Encoder,
    Method,
    init_truncated,
    mean_over_masked,
    patchify,
    random_mask,
    resize_mask,
    sincos_positions,
    transformer_blocks,
)


class MixMIMConfig(Config):
    """The defaults are those of the paper's MixMIM-B."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Fraction of the patches that the other image replaces."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=0)
    decoder_heads: int = Field(16, ge=1)


class MixMIM(Method):
    """Liu et al., MixMAE: Mixed and Masked Autoencoder for Efficient Pretraining of Hierarchical Transformers."""

    name = "mixmim"
    version = "1"
    paper = "https://arxiv.org/abs/2205.13137"
    reference = "https://github.com/Sense-X/MixMIM@2b2f5a9a"
    Config = MixMIMConfig
    waivers: ClassVar = {
        "masked_pixels_do_not_reach_predict": "the masked pixels of an image are those that its partner shows",
        "images_of_a_batch_are_independent": "an image shows its partner where it is masked",
    }
    config: MixMIMConfig
    positions: Tensor

    def __init__(self, config: MixMIMConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.grid = (encoder.image_size // encoder.stride,) * 2
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_positions(self.grid, dim)[:, 1:], persistent=False)
        self.blocks = transformer_blocks(dim, config.decoder_depth, config.decoder_heads)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, encoder.stride**2 * encoder.in_channels)
        init_truncated(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """On the grid of the encoder's last map, so that no cell of it shows both images."""
        return random_mask(batch, self.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """[B, 2, h, w, pixels]: each image, and the one that replaces its masked patches."""
        patches = patchify(images, self.encoder.stride)
        return torch.stack((patches, patches.flip(0)), 1)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        tokens = self.encoder.embed(images)
        replaced = resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1)
        x = self.encoder.encode(torch.where(replaced, tokens.flip(0), tokens)).flatten(2).transpose(1, 2)
        x, masked = self.project(x), mask.flatten(1).unsqueeze(-1)
        token = self.mask_token.to(x.dtype)
        both = torch.cat((torch.where(masked, token, x), torch.where(masked, x, token))) + self.positions
        pixels = self.head(self.norm(self.blocks(both))).unflatten(1, self.grid)
        return torch.stack(pixels.chunk(2), 1)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error of what is masked in each image: the masked patches of one, the visible ones of the other."""
        error = (prediction.float() - target).square().mean(-1)
        return mean_over_masked(error.flatten(0, 1), torch.stack((mask, ~mask), 1).flatten(0, 1))
