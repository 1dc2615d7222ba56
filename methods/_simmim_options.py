"""Options of SimMIM."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    Grid,
    MaskRatioConfig,
    block_mask,
    init_truncated,
    masked_count,
    random_mask,
    square_mask,
)
from mimbench_methods._late_tokens import LateTokensConfig
from mimbench_methods._noise_masks import NoiseKind, NoiseMaskConfig, is_noise
from mimbench_methods._pixel_heads import inverse_swin_head, linear_head, mlp_head
from mimbench_methods._pixel_targets import Bins, Clusters, PixelTarget, Values


class SimMIMConfig(LateTokensConfig, NoiseMaskConfig, MaskRatioConfig):
    """What the paper varies; the defaults are its choices."""

    masking: Literal["random", "square", "block", NoiseKind] = "random"
    """square: one square at a random place; block: BEiT's rectangles; noise: ColorMAE's."""
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of the mask patches that is masked."""
    mask_patch_size: int = Field(32, ge=1)
    """Side of one mask patch, px."""
    head: Literal["linear", "mlp", "inverse-swin"] = "linear"
    head_depths: tuple[Depth, ...] | None = None
    """Inverse Swin: blocks of each stage, coarsest first; absent: Swin-T's, as far as the stride goes."""
    head_window: int = Field(6, ge=1)
    """Inverse Swin: side of an attention window, cells."""
    target: Literal["pixels", "clusters", "bins"] = "pixels"
    """pixels: their values; clusters: the nearest colour of a palette; bins: each channel in equal bins."""
    target_size: int | None = Field(None, ge=1)
    """Side of the image that is predicted, px: a downsampled one; absent: the image itself."""
    clusters: int = Field(512, ge=2)
    bins: int = Field(8, ge=2)
    loss: Literal["l1", "smooth-l1", "l2"] = "l1"
    """Of pixel values; clusters and bins take the cross-entropy."""
    loss_area: Literal["hidden", "all"] = "hidden"
    init: Literal["official", "encoder"] = "official"
    """Initial weights of a ViT: those of the official script, or the encoder's own, with which random-init stays."""

    @model_validator(mode="after")
    def _consistent(self) -> SimMIMConfig:
        self.check_noise(self.masking)
        if self.target != "pixels" and self.loss != "l1":
            raise ValueError(f"loss {self.loss!r} is for pixel values; target {self.target!r} takes the cross-entropy")
        if self.head != "inverse-swin" and self.head_depths is not None:
            raise ValueError(f"head_depths is for the inverse-swin head, not for head {self.head!r}")
        if self.encode == "visible" and self.masking == "block":
            raise ValueError('encode "visible" needs as many masked patches in each image, which masking "block" lacks')
        return self

    def draw_mask(self, batch: int, grid: Grid, ratio: float, generator: torch.Generator) -> Tensor:
        """Masks bool [batch, Gh, Gw] of the kind `masking` names."""
        if is_noise(self.masking):
            return self.draw_noise_mask(self.masking, batch, grid, ratio, generator)
        if self.masking == "square":
            return square_mask(batch, grid, ratio, generator)
        if self.masking == "block":
            cells, inner = grid[0] * grid[1], (grid[0] - 1) * (grid[1] - 1)
            count = masked_count(cells, ratio)
            return block_mask(batch, grid, count, generator, min_block=max(1, min(16, count, inner)))
        return random_mask(batch, grid, ratio, generator)

    def build_target(self, channels: int) -> PixelTarget:
        if self.target == "clusters":
            return Clusters(channels, self.clusters)
        return Bins(channels, self.bins) if self.target == "bins" else Values(channels, self.loss)

    def build_head(self, encoder: Encoder, outputs: int, upsample: int) -> nn.Sequential:
        """From the encoder's map to `outputs` channels, each of whose cells becomes `upsample` pixels a side."""
        if self.head == "inverse-swin":
            return inverse_swin_head(encoder, outputs, upsample, self.head_depths, self.head_window)
        return (mlp_head if self.head == "mlp" else linear_head)(encoder.out_dim, outputs, upsample)

    def initialise(self, encoder: Encoder, mask_token: nn.Parameter) -> None:
        """The official initial weights: a ViT's are cut at one sigma, as BEiT's; a Swin's are not."""
        official_vit = encoder.kind == "vit" and self.init == "official"
        if official_vit:
            init_truncated(encoder)
        cut = 0.02 if official_vit else 2.0
        nn.init.trunc_normal_(mask_token, std=0.02, a=-cut, b=cut)
