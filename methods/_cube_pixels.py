"""Pixels of the masked cubes of a clip as target and picture, in [0, 1] and normalised per colour (VideoMAE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimbench.api import (
    Encoder,
    Stage,
    at_least_float32,
    mask_at_pixels,
    patchify,
    unpatchify,
)
from mimbench_methods._cube_autoencoder import CubeAutoencoder


class CubePixels(CubeAutoencoder):
    """A method whose `predict` returns the pixels of all frames of a cube.

    Attributes:
        pixel_mean, pixel_std: [C], with which images are normalised.
    """

    config: Any
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: Any, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels = encoder.in_channels
        # The target is made of pixels in [0, 1]. `prepare` replaces ImageNet's statistics by those of the recipe.
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
        self.register_buffer("pixel_mean", torch.tensor(mean).repeat(channels // len(mean)))
        self.register_buffer("pixel_std", torch.tensor(std).repeat(channels // len(std)))

    def prepare(self, stage: Stage) -> None:
        self.pixel_mean.copy_(torch.tensor(stage.input.mean).expand_as(self.pixel_mean))
        self.pixel_std.copy_(torch.tensor(stage.input.std).expand_as(self.pixel_std))

    def target(self, images: Tensor) -> Tensor:
        """Pixels of each cube, [B, T', h, w, tubelet * size * size * C], ordered frame, row, column, channel."""
        cubes = self._cubes(images)
        if self.config.norm_pixels:
            mean, std = _moments(cubes)
            cubes = (cubes - mean) / std
        return cubes.flatten(-2)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and deviation of each masked cube."""
        pixels = self.predict(images, mask).float().unflatten(-1, (-1, self.encoder.in_channels))
        if self.config.norm_pixels:
            mean, std = _moments(self._cubes(images))
            pixels = pixels * std + mean
        pixels = (pixels - self.pixel_mean) / self.pixel_std
        clips = unpatchify(pixels.flatten(-2), self.encoder.patch_size, self.encoder.tubelet)
        return torch.where(mask_at_pixels(mask, images), clips, images)

    def _cubes(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, T', h, w, tubelet * size * size, C]."""
        cubes = patchify(at_least_float32(images), self.encoder.patch_size, self.encoder.tubelet)
        return cubes.unflatten(-1, (-1, self.encoder.in_channels)) * self.pixel_std + self.pixel_mean


def _moments(cubes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over a cube's pixels, per colour: [..., 1, C]. Epsilon is added to the deviation, unlike MAE.

    The deviation is the unbiased one.
    """
    return cubes.mean(-2, keepdim=True), cubes.std(-2, keepdim=True) + 1e-6
