"""What methods share that predict the pixels of masked patches: target, loss, pictures, and a transformer decoder."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    MaskRatioConfig,
    Method,
    added,
    at_least_float32,
    init_xavier,
    mask_at_pixels,
    mean_over_masked,
    patchify,
    sincos_positions,
    transformer_blocks,
    unpatchify,
)
from mimbench_methods._low_pass import check_low_pass, low_pass


class PatchPixels(Method):
    """A method whose `predict` returns the pixels of patches, [B, h, w, size * size * C], ordered row, column, channel.

    It normalises the pixels of each patch by their own mean and variance if its option `norm_pixels` is true, or if it
    has no such option. It predicts pixels without high frequencies if it has the option `low_pass`.
    """

    @property
    def pixel_patch(self) -> int:
        """Side of a patch, px."""
        return self.encoder.stride

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, size * size * C], ordered row, column, channel."""
        patches = self._patches(images)
        if not self._normalises:
            return patches
        mean, std = _moments(patches)
        return (patches - mean) / std

    def error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Squared error of each patch, mean over its values: [B, h, w, D] -> [B, h, w]."""
        return (at_least_float32(prediction) - target).square().mean(-1)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over each patch, then over the masked patches of the batch."""
        return mean_over_masked(self.error(prediction, target), mask)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and variance of each masked patch.

        They are not predicted: brightness and contrast of the masked patches are the true ones, structure is predicted.
        """
        patches = self.predict(images, mask).float()
        if self._normalises:
            mean, std = _moments(self._patches(images))
            patches = patches * std + mean
        return torch.where(mask_at_pixels(mask, images), unpatchify(patches, self.pixel_patch), images)

    @property
    def reconstruction_note(self) -> str:
        if not self._normalises:
            return ""
        return "Mean and contrast of each masked patch are the true ones; only its structure is predicted."

    def _patches(self, images: Tensor) -> Tensor:
        """The pixels that are predicted, before they are normalised."""
        radius = getattr(self.config, "low_pass", None)
        return patchify(at_least_float32(images) if radius is None else low_pass(images, radius), self.pixel_patch)

    @property
    def _normalises(self) -> bool:
        return getattr(self.config, "norm_pixels", True)


class PatchDecoderConfig(MaskRatioConfig):
    """The decoder; the defaults are those of MAE's ViT-B."""

    norm_pixels: bool = True
    """Predict the pixels of each patch normalised by their own mean and variance."""
    low_pass: float | None = added(None, gt=0)
    """Predict the image without frequencies above this, in cycles per image (PixMIM: 40). Absent: the image itself."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(8, ge=0)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)


class PatchDecoder(PatchPixels):
    """A method with a transformer decoder over all patches, with fixed sin-cos positions."""

    eps: ClassVar[float] = 1e-6
    """Added to the variance in each LayerNorm of the decoder."""
    Config = PatchDecoderConfig
    config: PatchDecoderConfig
    positions: Tensor

    @classmethod
    def masks_only(cls, config: PatchDecoderConfig, encoder: Encoder) -> Self:
        """Without the decoder, whose blocks are slow to import."""
        method = cls.__new__(cls)
        Method.__init__(method, config, encoder)
        return method

    def build_decoder(self, grid: tuple[int, ...]) -> None:
        """Make the decoder for patches on `grid`, with MAE's initial weights for it and for the encoder."""
        config, dim = self.config, self.config.decoder_dim
        check_low_pass(config.low_pass, self.encoder.image_size)
        self.project = nn.Linear(self.encoder.out_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_positions(grid, dim)[:, 1:], persistent=False)
        self.blocks = transformer_blocks(
            dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, eps=self.eps
        )
        self.norm = nn.LayerNorm(dim, eps=self.eps)
        self.head = nn.Linear(dim, self.pixel_patch**2 * self.encoder.in_channels)
        init_xavier(self)


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) standard deviation of each patch [..., pixels], shaped [..., 1]."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()
