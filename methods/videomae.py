"""VideoMAE: encode the visible cubes of a clip alone, then predict the pixels of the masked ones."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    Stage,
    at_least_float32,
    init_xavier,
    patchify,
    random_mask,
    sinusoid_positions,
    tube_mask,
    unpatchify,
)
from mimbench_methods._cube_autoencoder import CubeAutoencoder, CubeAutoencoderConfig
from mimbench_methods.official.videomae import OfficialVideoMAE


class VideoMAEConfig(CubeAutoencoderConfig):
    """The defaults are those of the official ViT-B on Kinetics-400."""

    mask: Literal["tube", "random"] = "tube"
    """tube: the same cells in all frames; random: cubes anywhere in the clip."""


class VideoMAE(CubeAutoencoder):
    """Tong et al., VideoMAE: Masked Autoencoders are Data-Efficient Learners (NeurIPS 2022, arXiv:2203.12602).

    Reference code: CC-BY-NC 4.0; not used here.

    Attributes:
        pixel_mean, pixel_std: [C], with which images are normalised.
    """

    name: ClassVar[str] = "videomae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked cubes"
    paper: ClassVar[str] = "https://arxiv.org/abs/2203.12602"
    reference: ClassVar[str] = "https://github.com/MCG-NJU/VideoMAE@14ef8d856287c94ef1f985fe30f958eb4ec2c55d"
    official: ClassVar[OfficialCode | None] = OfficialVideoMAE()
    Config = VideoMAEConfig
    config: VideoMAEConfig
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels = encoder.in_channels
        # The target is made of pixels in [0, 1]. `prepare` replaces ImageNet's statistics by those of the recipe.
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
        self.register_buffer("pixel_mean", torch.tensor(mean).repeat(channels // len(mean)))
        self.register_buffer("pixel_std", torch.tensor(std).repeat(channels // len(std)))
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        dim = config.decoder_dim
        self.project = nn.Linear(encoder.out_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoid_positions(math.prod(encoder.grid), dim), persistent=False)
        self.build_blocks()
        self.head = nn.Linear(dim, encoder.tubelet * encoder.patch_size**2 * encoder.in_channels)
        init_xavier(self)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def prepare(self, stage: Stage) -> None:
        self.pixel_mean.copy_(torch.tensor(stage.input.mean).expand_as(self.pixel_mean))
        self.pixel_std.copy_(torch.tensor(stage.input.std).expand_as(self.pixel_std))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """As many masked cubes in each clip, so that the visible ones form a batch."""
        if self.config.mask == "tube":
            return tube_mask(batch, self.encoder.grid, self.config.mask_ratio, generator)
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator, rounding="floor")

    def cubes(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, T', h, w, tubelet * size * size, C], ordered frame, row, column."""
        cubes = patchify(at_least_float32(images), self.encoder.patch_size, self.encoder.tubelet)
        return cubes.unflatten(-1, (-1, self.encoder.in_channels)) * self.pixel_std + self.pixel_mean

    def moments(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Per colour, [..., 1, C]. The deviation is the unbiased one; epsilon is added to it, unlike MAE."""
        return cubes.mean(-2, keepdim=True), cubes.std(-2, keepdim=True) + 1e-6

    def clips_of(self, cubes: Tensor) -> Tensor:
        pixels = (cubes - self.pixel_mean) / self.pixel_std
        return unpatchify(pixels.flatten(-2), self.encoder.patch_size, self.encoder.tubelet)

    def no_weight_decay(self) -> set[str]:
        """The official script decays neither the mask token nor positions."""
        return super().no_weight_decay() | {"mask_token"}
