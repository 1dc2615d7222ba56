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
    transformer_blocks,
    tube_mask,
    visible_indices,
)
from mimbench_methods._cube_pixels import CubePixels
from mimbench_methods._places import put_at
from mimbench_methods._videomae_options import VideoMAEConfig
from mimbench_methods.official.videomae import OfficialVideoMAE


class VideoMAE(CubePixels):
    """Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners (NeurIPS 2022, arXiv:2203.12602).

    Reference code: CC-BY-NC 4.0; not used here.
    """

    name: ClassVar[str] = "videomae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked cubes"
    sees: ClassVar[str] = "visible cubes"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2203.12602"
    reference: ClassVar[str] = "https://github.com/MCG-NJU/VideoMAE@14ef8d856287c94ef1f985fe30f958eb4ec2c55d"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "clips"})
    takes_clips: ClassVar[bool] = True
    takes_images: ClassVar[bool] = False
    official: ClassVar[OfficialCode | None] = OfficialVideoMAE()
    Config = VideoMAEConfig
    config: VideoMAEConfig
    positions: Tensor

    def __init__(self, config: VideoMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoid_positions(math.prod(encoder.grid), dim), persistent=False)
        self.blocks = transformer_blocks(
            dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, key_bias=False
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, encoder.tubelet * encoder.patch_size**2 * encoder.in_channels)
        init_xavier(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """As many masked cubes in each clip, so that the visible ones form a batch."""
        if self.config.mask == "tube":
            return tube_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator, rounding="floor")

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """In the shape of the target."""
        keep = visible_indices(mask)
        features = self.encoder.forward_tokens(self.encoder.embed(images), keep)
        visible = self.project(features.patches)
        tokens = put_at(keep, visible, self.mask_token, mask[0].numel()) + self.positions
        return self.head(self.norm(self.blocks(tokens))).unflatten(1, mask.shape[1:])

    def no_weight_decay(self) -> set[str]:
        """The official script decays neither the mask token nor positions."""
        return super().no_weight_decay() | {"mask_token"}
