"""What methods share that encode the visible patches alone and predict the pixels of the masked ones (MAE, HPM)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Encoder,
    StepOutput,
    check_mask_ratios,
    count_visible,
    resize_mask,
    sincos_positions,
    visible_indices,
)
from mimbench_methods._low_pass import check_low_pass
from mimbench_methods._patch_pixels import PatchDecoder, PatchDecoderConfig
from mimbench_methods._places import put_at
from mimbench_methods._weight_decay import DecaysTokens


class PixelDecoderConfig(PatchDecoderConfig):
    """Masked patches and the decoder that predicts them; the defaults are those of MAE's ViT-B."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked."""


class PixelDecoder(PatchDecoder, DecaysTokens):
    """A method whose encoder sees the visible patches only. Subclasses draw the masks.

    Each image has the same number of masked patches, so that the visible ones form a batch.
    """

    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    sees: ClassVar[str] = "visible patches"
    Config = PixelDecoderConfig
    config: PixelDecoderConfig

    def __init__(self, config: PixelDecoderConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        self.visible = count_visible(self)
        """Patches that the encoder sees of each image."""
        self.build_decoder(encoder.grid)

    @property
    def pixel_patch(self) -> int:
        return self.encoder.patch_size

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        check_mask_ratios(self)
        check_low_pass(self.config.low_pass, size)
        self.visible = count_visible(self)
        if "positions" in self._buffers:  # not of a method for masks only
            positions = sincos_positions(self.patch_grid, self.config.decoder_dim)[:, 1:]
            self.positions = positions.to(self.positions)

    def before_step(self, progress: float) -> None:
        if self.config.initial_mask_ratio is not None:
            self.visible = count_visible(self)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self._predict(images, visible_indices(resize_mask(mask, self.patch_grid)))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`.

        The number is known, so that an accelerator is not synchronised.
        """
        target = self.target(images)
        keep = visible_indices(resize_mask(mask, self.patch_grid), self.visible)
        return StepOutput(self.loss(self._predict(images, keep), target, mask))

    def _predict(self, images: Tensor, keep: Tensor) -> Tensor:
        """keep: int64 [B, K], the visible patches, in any order."""
        return self.decode_pixels(self.decoder_input(images, keep))

    def decoder_input(self, images: Tensor, keep: Tensor) -> Tensor:
        """Projected tokens [B, P + h * w, decoder_dim] of an image, mask tokens among them, with their positions.

        keep: int64 [B, K], the visible patches, in any order.
        """
        prefix, patches = self.decoder_tokens(images, keep)
        return torch.cat((prefix, patches + self.positions), 1)

    def decoder_tokens(self, images: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """The same without positions: prefix tokens [B, P, decoder_dim] and patches [B, h * w, decoder_dim]."""
        prefix = self.encoder.num_prefix_tokens
        x = self.project(self.encoder.forward_tokens(self.encoder.embed(images), keep).sequence)
        return x[:, :prefix], put_at(keep, x[:, prefix:], self.mask_token, math.prod(self.patch_grid))

    def decode_pixels(self, x: Tensor) -> Tensor:
        """What `decoder_input` returns -> pixels of each patch [B, h, w, patch * patch * C]."""
        pixels = self.head(self.norm(self.blocks(x)))
        return pixels[:, self.encoder.num_prefix_tokens :].unflatten(1, self.patch_grid)
