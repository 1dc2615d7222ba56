"""VideoMAE: encode the visible cubes of a clip alone, then predict the pixels of the masked ones."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    init_xavier,
    random_mask,
    sinusoid_positions,
    tube_mask,
)
from mimbench_methods._cube_pixels import CubePixels
from mimbench_methods._videomae_options import VideoMAEConfig
from mimbench_methods.official.videomae import OfficialVideoMAE


class VideoMAE(CubePixels):
    """Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners (NeurIPS 2022, arXiv:2203.12602).

    Reference code: CC-BY-NC 4.0; not used here.
    """

    name: ClassVar[str] = "videomae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked cubes"
    paper: ClassVar[str] = "https://arxiv.org/abs/2203.12602"
    reference: ClassVar[str] = "https://github.com/MCG-NJU/VideoMAE@14ef8d856287c94ef1f985fe30f958eb4ec2c55d"
    official: ClassVar[OfficialCode | None] = OfficialVideoMAE()
    Config = VideoMAEConfig
    config: VideoMAEConfig

    def __init__(self, config: VideoMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoid_positions(math.prod(encoder.grid), dim), persistent=False)
        self.build_blocks()
        self.head = nn.Linear(dim, encoder.tubelet * encoder.patch_size**2 * encoder.in_channels)
        init_xavier(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """As many masked cubes in each clip, so that the visible ones form a batch."""
        if self.config.mask == "tube":
            return tube_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator, rounding="floor")

    def no_weight_decay(self) -> set[str]:
        """The official script decays neither the mask token nor positions."""
        return super().no_weight_decay() | {"mask_token"}
