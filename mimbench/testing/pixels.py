"""The least of methods that can reconstruct, for the checks of tasks that need one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.contract import Config, Encoder, Method
from mimbench.masks import random_mask, resize_mask


class Pixels(Method):
    """Pixels of hidden patches, by a linear layer from an encoder that sees them blank. It is not trained."""

    name, version = "pixels", "1"
    encoders = ("vit", "swin", "convnet")

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
        hidden = resize_mask(mask, images.shape[-2:]).unsqueeze(1)
        return self.head(self.encoder.encode(self.encoder.embed(images.masked_fill(hidden, 0))))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return F.mse_loss(prediction, target)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        hidden = resize_mask(mask, images.shape[-2:]).unsqueeze(1)
        return torch.where(hidden, self.predict(images, mask), images)
