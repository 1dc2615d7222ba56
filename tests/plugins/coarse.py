"""Masked image modeling with a coarse target: of each masked patch, predict a few means instead of every pixel."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Config, Encoder, InputError, Method, mean_over_masked, patchify, random_mask


class CoarseConfig(Config):
    cells: int = Field(2, ge=1)
    """Means per side of a patch. As many as the patch has pixels: every pixel, so that the idea is off."""
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Fraction of the patches that are masked."""


class Coarse(Method):
    """Predict `cells` x `cells` means of each masked patch from the visible patches."""

    name = "coarse"
    version = "1"
    encoder_needs = frozenset({"mask-tokens", "separate-patches", "one-grid"})
    Config = CoarseConfig
    config: CoarseConfig

    def __init__(self, config: CoarseConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if encoder.patch_size % config.cells:
            raise InputError(f"method.cells {config.cells} does not divide a patch of {encoder.patch_size} px")
        self.token = nn.Parameter(torch.zeros(1, 1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.out_dim, config.cells**2 * encoder.in_channels)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, cells * cells * C]."""
        means = F.avg_pool2d(images, self.encoder.patch_size // self.config.cells)
        return patchify(means, self.config.cells)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        encoded = self.encoder.encode_masked(images, mask, self.token)
        return self.head(encoded.permute(0, 2, 3, 1))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return mean_over_masked((prediction - target).square().mean(-1), mask)
