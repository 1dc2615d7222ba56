"""SimMIM as in textbooks: mask single pixels, fill them with zeros, reconstruct the whole image."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mimbench.api import Encoder, MaskRatioConfig, Method, check_mask_ratios, mask_at_pixels, random_mask
from mimbench_methods._pixel_heads import linear_head, upsampling


class SimMIMPixelConfig(MaskRatioConfig):
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of the pixels that is masked."""


class SimMIMPixel(Method):
    """The textbook form: no mask token; masked pixels are zeros, the mean after normalisation, in the input."""

    name: ClassVar[str] = "simmim-pixel"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "all pixels"
    sees: ClassVar[str] = "all patches, masked ones blank"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.09886"
    Config = SimMIMPixelConfig
    config: SimMIMPixelConfig

    def __init__(self, config: SimMIMPixelConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.grid = (encoder.image_size, encoder.image_size)
        check_mask_ratios(self)
        self.decoder = linear_head(encoder.out_dim, encoder.in_channels, upsampling(encoder, encoder.image_size))

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        self.grid = (size, size)
        check_mask_ratios(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.grid, self.config.ratio_at(self.progress), generator)

    def target(self, images: Tensor) -> Tensor:
        return images

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        visible = images.masked_fill(mask_at_pixels(mask, images), 0.0)
        return self.decoder(self.encoder.features(visible).dense)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over every pixel, masked or not."""
        return F.mse_loss(prediction.float(), target)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask_at_pixels(mask, images), self.predict(images, mask).float(), images)
