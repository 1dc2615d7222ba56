"""A method: masked patches are blurred instead of removed, and the model predicts the sharp image."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import Config, Encoder, Method, mask_at_pixels, random_mask


class DeblurConfig(Config):
    mask_ratio: float = 0.5
    """Fraction of the patches that are blurred."""


class Deblur(Method):
    """Predict sharp pixels from an image in which each masked patch shows its mean."""

    name = "deblur"
    version = "1"
    Config = DeblurConfig
    config: DeblurConfig
    waivers: ClassVar = {"masked_pixels_do_not_reach_predict": "a masked patch shows its mean"}

    def __init__(self, config: DeblurConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        outputs = encoder.stride**2 * encoder.in_channels
        self.decoder = nn.Sequential(nn.Conv2d(encoder.out_dim, outputs, 1), nn.PixelShuffle(encoder.stride))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        return images

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        size = images.shape[-2:]
        blurred = F.interpolate(F.avg_pool2d(images, self.encoder.patch_size), size)
        network_input = torch.where(mask_at_pixels(mask, images), blurred, images)
        return self.decoder(self.encoder.features(network_input).dense)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return (prediction - target).pow(2).mean()
