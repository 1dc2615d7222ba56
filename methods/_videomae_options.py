"""Options of VideoMAE."""

from __future__ import annotations

from typing import Literal

from mimbench_methods._cube_autoencoder import CubeAutoencoderConfig


class VideoMAEConfig(CubeAutoencoderConfig):
    """The defaults are those of the official ViT-B on Kinetics-400."""

    mask: Literal["tube", "random"] = "tube"
    """tube: the same cells in all frames; random: cubes anywhere in the clip."""
