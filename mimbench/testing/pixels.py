"""A minimal method that can reconstruct images, for checks of tasks that need one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.contract import Config, Encoder, Method
from mimbench.masks import mask_at_pixels, random_mask


class Pixels(Method):
    """Predicts the pixels of masked patches with a linear layer on an encoder that gets them blank. Not trained."""

    name, version = "pixels", "1"

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values = encoder.stride**2 * encoder.in_channels
            self.head = nn.Sequential(nn.Conv2d(encoder.out_dim, values, 1), nn.PixelShuffle(encoder.stride))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, 0.5, generator)

    def target(self, images: Tensor) -> Tensor:
        return images

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        masked = mask_at_pixels(mask, images)
        return self.head(self.encoder.features(images.masked_fill(masked, 0)).dense)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return F.mse_loss(prediction, target)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        masked = mask_at_pixels(mask, images)
        return torch.where(masked, self.predict(images, mask), images)
