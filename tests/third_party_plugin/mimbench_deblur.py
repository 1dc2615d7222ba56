"""A whole third-party method: hidden patches are blurred instead of removed, and to be made sharp again."""

import torch
import torch.nn.functional as F
from torch import nn

from mimbench.api import Config, Method, random_mask, resize_mask


class DeblurConfig(Config):
    mask_ratio: float = 0.5


class Deblur(Method):
    """Predict sharp pixels from an image whose hidden patches are averages."""

    name = "deblur"
    version = "1"
    encoders = ("vit", "swin", "convnet")
    Config = DeblurConfig

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.out_dim, encoder.stride**2 * encoder.in_channels, 1), nn.PixelShuffle(encoder.stride)
        )

    def sample_mask(self, batch, generator):
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)

    def target(self, images):
        return images

    def predict(self, images, mask):
        blurred = F.interpolate(F.avg_pool2d(images, self.encoder.patch_size), images.shape[-2:])
        seen = torch.where(resize_mask(mask, images.shape[-2:]).unsqueeze(1), blurred, images)
        return self.decoder(self.encoder.encode(self.encoder.embed(seen)))

    def loss(self, prediction, target, mask):
        return (prediction - target).pow(2).mean()
