"""The control without a pretext task: nothing is masked, and the model copies the image."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mimbench.api import Config, Encoder, Method, mask_at_pixels
from mimbench_methods._pixel_heads import linear_head, upsampling


class AutoencoderConfig(Config):
    loss: Literal["l1", "l2"] = "l1"
    """l1, as SimMIM's, so that the two differ in masking only."""


class Autoencoder(Method):
    """SimMIM's encoder, head and loss on unmasked images: what a method gains by masking is above this."""

    name: ClassVar[str] = "autoencoder"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "all pixels"
    sees: ClassVar[str] = "all patches"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    Config = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.decoder = linear_head(encoder.out_dim, encoder.in_channels, upsampling(encoder, encoder.image_size))

    def set_image_size(self, size: int) -> None:
        self.image_size = size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Nothing is masked."""
        return torch.zeros(batch, *self.patch_grid, dtype=torch.bool, device=generator.device)

    def target(self, images: Tensor) -> Tensor:
        return images

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Trained on unmasked images. If a mask is passed nevertheless, masked pixels are zero."""
        visible = images.masked_fill(mask_at_pixels(mask, images), 0.0)
        return self.decoder(self.encoder.features(visible).dense)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean over every pixel."""
        distance = F.l1_loss if self.config.loss == "l1" else F.mse_loss
        return distance(prediction.float(), target)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """Its copy of the whole image, visible part included."""
        return self.predict(images, mask).float()
