"""MAE: encode the visible patches alone, then reconstruct the masked ones with a light decoder."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimbench.api import InputError, OfficialCode, block_mask, grid_mask, masked_count, random_mask
from mimbench_methods._noise_masks import NoiseKind, NoiseMaskConfig, is_noise
from mimbench_methods._pixel_decoder import PixelDecoder, PixelDecoderConfig
from mimbench_methods.official.mae import OfficialMAE


class MAEConfig(NoiseMaskConfig, PixelDecoderConfig):
    """The paper's choices; the defaults are those of its ViT-B."""

    mask: Literal["random", "block", "grid", NoiseKind] = "random"
    """A grid keeps one patch of each k x k, so its mask ratio is 0.75, 0.889, 0.9375, ... Noise masks are
    ColorMAE's."""
    min_block: int = Field(16, ge=1)
    """Block masks: least size of a block, in patches."""

    @model_validator(mode="after")
    def _has_masks_at_every_ratio(self) -> MAEConfig:
        self.check_noise(self.mask)
        if self.mask == "grid" and self.initial_mask_ratio is not None:
            raise ValueError("grid masks exist for few ratios and cannot change; leave initial_mask_ratio out")
        return self


class MAE(PixelDecoder):
    """He et al., Masked Autoencoders Are Scalable Vision Learners (CVPR 2022, arXiv:2111.06377).

    Reference code: CC-BY-NC 4.0; not used here.
    """

    name: ClassVar[str] = "mae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.06377"
    reference: ClassVar[str] = "https://github.com/facebookresearch/mae@efb2a8062c206524e35e47d04501ed4f544c0ae8"
    official: ClassVar[OfficialCode | None] = OfficialMAE()
    Config = MAEConfig
    config: MAEConfig

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """The same number of masked patches in each image, for every kind, so that the visible ones form a batch."""
        grid, ratio = self.patch_grid, self.config.ratio_at(self.progress)
        if self.config.mask == "random":
            return random_mask(batch, grid, ratio, generator, rounding="mae")
        if is_noise(self.config.mask):
            return self.config.draw_noise_mask(self.config.mask, batch, grid, ratio, generator, "mae")
        if self.config.mask == "grid":
            return grid_mask(batch, grid, generator, period=_period(ratio))
        count = masked_count(grid[0] * grid[1], ratio, "mae")
        return block_mask(batch, grid, count, generator, min_block=self.config.min_block, exact=True)


def _period(ratio: float) -> int:
    """The k of a grid that keeps one patch of each k x k."""
    period = round((1 - ratio) ** -0.5)
    if period < 2 or abs(1 - period**-2 - ratio) > 0.005:
        raise InputError(f"no grid mask has the mask ratio {ratio:g}: choose method.mask_ratio 0.75, 0.889, ...")
    return period
