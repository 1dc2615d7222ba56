"""SimMIM on clips: predict the raw pixels of masked cubes of space and time with a linear head."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Encoder,
    Grid,
    InputError,
    Method,
    added,
    at_least_float32,
    cuboid_mask,
    init_truncated,
    init_xavier,
    mask_at_pixels,
    mask_grid,
    mean_over_masked,
    patchify,
    random_mask,
    tube_mask,
    unpatchify,
)
from mimbench_methods._pixel_targets import Values


class SimMIMVideoConfig(Config):
    """Where SimMIM has a counterpart, the defaults are its own. No paper has this method."""

    masking: Literal["random", "tube", "cuboid"] = "random"
    """random: cubes anywhere in the clip; tube: the same cells in all frames; cuboid: blocks of space and time."""
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of the mask cubes that is masked."""
    mask_patch_size: int = Field(32, ge=1)
    """Side of one mask cube, px."""
    mask_frames: int = Field(2, ge=1)
    """Frames of one mask cube."""
    loss: Literal["l1", "smooth-l1", "l2"] = added("l1")
    init: Literal["official", "encoder", "xavier"] = "official"
    """Initial weights: those that SimMIM's script gives a ViT; the encoder's own, with which random-init stays; or
    MAE's, which are larger in a narrow encoder."""


class SimMIMVideo(Method):
    """SimMIM's step (arXiv:2111.09886) on cubes of a clip instead of patches of an image.

    All cubes are encoded, masked ones as a token. A linear head predicts the pixels; the loss is their error where
    masked.
    """

    name: ClassVar[str] = "simmim-video"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "pixels of masked cubes"
    sees: ClassVar[str] = "all cubes, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.09886"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens", "clips", "separate-patches", "one-grid"})
    takes_clips: ClassVar[bool] = True
    takes_images: ClassVar[bool] = False
    Config = SimMIMVideoConfig
    config: SimMIMVideoConfig

    def __init__(self, config: SimMIMVideoConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.grid = _mask_grid(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, encoder.embed_dim))
        if config.init != "encoder":
            (init_truncated if config.init == "official" else init_xavier)(encoder)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        self.pixels = Values(encoder.in_channels, config.loss)
        self.head = nn.Linear(encoder.out_dim, encoder.tubelet * encoder.patch_size**2 * encoder.in_channels)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        draw = {"random": random_mask, "tube": tube_mask, "cuboid": cuboid_mask}[self.config.masking]
        return draw(batch, self.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """Pixels of each cube, [B, T', h, w, tubelet * size * size * C]."""
        return patchify(at_least_float32(images), self.encoder.patch_size, self.encoder.tubelet)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """In the shape of the target."""
        visible = images.masked_fill(mask_at_pixels(mask, images), 0.0)
        return self.head(self.encoder.encode_masked(visible, mask, self.mask_token).permute(0, 2, 3, 4, 1))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean error over the masked pixels of the batch."""
        return mean_over_masked(self.pixels.error(prediction, target).mean(-1), mask)

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        pixels = self.predict(images, mask).float()
        clips = unpatchify(pixels, self.encoder.patch_size, self.encoder.tubelet)
        return torch.where(mask_at_pixels(mask, images), clips, images)


def _mask_grid(config: SimMIMVideoConfig, encoder: Encoder) -> Grid:
    """Cells of the mask by time, row and column."""
    if len(encoder.grid) != 3:
        raise InputError("method 'simmim-video' needs clips; set input.frames, or choose method simmim")
    if encoder.frames % config.mask_frames or config.mask_frames % encoder.tubelet:
        raise InputError(
            f"method.mask_frames {config.mask_frames} must divide the {encoder.frames} frames of a clip, and be a "
            f"multiple of the encoder's cube, {encoder.tubelet} frames"
        )
    space = mask_grid(encoder.image_size, config.mask_patch_size, encoder.patch_size)
    return (encoder.frames // config.mask_frames, *space)
