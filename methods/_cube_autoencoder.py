"""The asymmetric autoencoder of cubes that VideoMAE and MAE-ST share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Depth,
    Method,
    at_least_float32,
    mask_at_pixels,
    mean_over_masked,
    transformer_blocks,
    visible_indices,
)
from mimbench_methods._places import put_at


class CubeAutoencoderConfig(Config):
    """The mask and the decoder."""

    mask_ratio: float = Field(0.9, gt=0, lt=1)
    """Share of the cubes that is masked."""
    norm_pixels: bool = True
    """Predict the pixels of each cube, normalised by their own mean and standard deviation."""
    decoder_dim: int = Field(384, ge=2)
    decoder_depth: Depth = Field(4, ge=0)
    decoder_heads: int = Field(6, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)


class CubeAutoencoder(Method, ABC):
    """Encode the visible cubes of a clip alone; a light decoder gets them and mask tokens, and predicts each cube.

    A subclass says which pixels of a cube are predicted (`cubes`, `clips_of`), and how they are normalised (`moments`).
    """

    sees: ClassVar[str] = "visible cubes"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "clips"})
    takes_clips: ClassVar[bool] = True
    takes_images: ClassVar[bool] = False
    config: CubeAutoencoderConfig
    positions: Tensor
    project: nn.Linear
    mask_token: nn.Parameter
    blocks: nn.Sequential
    norm: nn.LayerNorm
    head: nn.Linear

    def build_blocks(self) -> None:
        """The decoder's blocks and last norm. Keys have no bias, which would change no attention."""
        config = self.config
        self.blocks = transformer_blocks(
            config.decoder_dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, key_bias=False
        )
        self.norm = nn.LayerNorm(config.decoder_dim, eps=1e-6)

    @abstractmethod
    def cubes(self, images: Tensor) -> Tensor:
        """The pixels that are predicted, [B, T', h, w, ...]; the axes behind w are those of one cube."""

    @abstractmethod
    def moments(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation by which cubes are normalised."""

    @abstractmethod
    def clips_of(self, cubes: Tensor) -> Tensor:
        """Normalised clips [B, C, T, H, W] of pixels in the form of `cubes`."""

    def target(self, images: Tensor) -> Tensor:
        """The pixels of each cube, [B, T', h, w, D]."""
        cubes = self.cubes(images)
        if self.config.norm_pixels:
            mean, std = self.moments(cubes)
            cubes = (cubes - mean) / std
        return cubes.flatten(4)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and deviation of each masked cube."""
        cubes = self.cubes(images)
        pixels = self.predict(images, mask).float().view_as(cubes)
        if self.config.norm_pixels:
            mean, std = self.moments(cubes)
            pixels = pixels * std + mean
        return torch.where(mask_at_pixels(mask, images), self.clips_of(pixels), images)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """In the shape of the target."""
        keep = visible_indices(mask)
        features = self.encoder.forward_tokens(self.encoder.embed(images), keep)
        visible = self.project(features.patches)
        tokens = put_at(keep, visible, self.mask_token, mask[0].numel())
        return self.head(self.norm(self.decode(tokens))).unflatten(1, mask.shape[1:])

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of all cubes without positions, [B, N, decoder_dim] -> the output of the decoder's blocks."""
        return self.blocks(tokens + self.positions)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over the masked cubes of the batch."""
        return mean_over_masked((at_least_float32(prediction) - target).square().mean(-1), mask)

    @property
    def reconstruction_note(self) -> str:
        if not self.config.norm_pixels:
            return ""
        return "Mean and contrast of each masked cube are the true ones; only its structure is predicted."
