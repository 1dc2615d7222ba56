"""Options of SimMIM."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench.api import Depth, MaskRatioConfig
from mimbench_methods._late_tokens import LateTokensConfig
from mimbench_methods._noise_masks import NoiseKind, NoiseMaskConfig


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
