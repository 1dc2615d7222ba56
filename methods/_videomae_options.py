"""Options of VideoMAE."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mimbench.api import Config, Depth


class VideoMAEConfig(Config):
    """The defaults are those of the official ViT-B on Kinetics-400."""

    mask: Literal["tube", "random"] = "tube"
    """tube: the same cells in all frames; random: cubes anywhere in the clip."""
    mask_ratio: float = Field(0.9, gt=0, lt=1)
    """Share of the cubes that is masked, rounded down in each frame or clip."""
    norm_pixels: bool = True
    """Predict the pixels of each cube, normalised per colour by their own mean and standard deviation."""
    decoder_dim: int = Field(384, ge=2)
    decoder_depth: Depth = Field(4, ge=0)
    decoder_heads: int = Field(6, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)
