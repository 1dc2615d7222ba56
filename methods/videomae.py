"""VideoMAE: encode the visible cubes of a clip alone, then predict the pixels of the masked ones."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Config,
    Depth,
    Encoder,
    Method,
    OfficialCode,
    Stage,
    at_least_float32,
    init_xavier,
    mask_at_pixels,
    mean_over_masked,
    patchify,
    random_mask,
    sinusoid_positions,
    transformer_blocks,
    tube_mask,
    unpatchify,
    visible_indices,
)
from mimbench_methods.official.videomae import OfficialVideoMAE


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


class VideoMAE(Method):
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
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.sample_mask(1, torch.Generator())  # an impossible ratio is refused here
        dim, channels = config.decoder_dim, encoder.in_channels
        self.project = nn.Linear(encoder.out_dim, dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sinusoid_positions(math.prod(encoder.grid), dim), persistent=False)
        self.blocks = transformer_blocks(
            dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_ratio, key_bias=False
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, encoder.tubelet * encoder.patch_size**2 * channels)
        # The target is made of pixels in [0, 1]. `prepare` replaces ImageNet's statistics by those of the recipe.
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
        self.register_buffer("pixel_mean", torch.tensor(mean).repeat(channels // len(mean)))
        self.register_buffer("pixel_std", torch.tensor(std).repeat(channels // len(std)))
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

    def target(self, images: Tensor) -> Tensor:
        """Pixels of each cube, [B, T', h, w, tubelet * size * size * C], ordered frame, row, column, channel."""
        cubes = self._cubes(images)
        if self.config.norm_pixels:
            mean, std = _moments(cubes)
            cubes = (cubes - mean) / std
        return cubes.flatten(-2)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """In the shape of the target."""
        keep = visible_indices(mask)
        features = self.encoder.forward_tokens(self.encoder.embed(images), keep)
        visible = self.project(features.patches)
        tokens = self.mask_token.to(visible.dtype).expand(len(visible), mask[0].numel(), -1)
        tokens = tokens.scatter(1, keep.unsqueeze(-1).expand_as(visible), visible) + self.positions
        return self.head(self.norm(self.blocks(tokens))).unflatten(1, mask.shape[1:])

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return mean_over_masked((at_least_float32(prediction) - target).square().mean(-1), mask)

    def no_weight_decay(self) -> set[str]:
        """The official script decays neither the mask token nor positions."""
        return super().no_weight_decay() | {"mask_token"}

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        """A normalised prediction is brought back with the true mean and deviation of each masked cube."""
        pixels = self.predict(images, mask).float().unflatten(-1, (-1, self.encoder.in_channels))
        if self.config.norm_pixels:
            mean, std = _moments(self._cubes(images))
            pixels = pixels * std + mean
        pixels = (pixels - self.pixel_mean) / self.pixel_std
        clips = unpatchify(pixels.flatten(-2), self.encoder.patch_size, self.encoder.tubelet)
        return torch.where(mask_at_pixels(mask, images), clips, images)

    @property
    def reconstruction_note(self) -> str:
        if not self.config.norm_pixels:
            return ""
        return "Mean and contrast of each masked cube are the true ones; only its structure is predicted."

    def _cubes(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1], [B, T', h, w, tubelet * size * size, C]."""
        cubes = patchify(at_least_float32(images), self.encoder.patch_size, self.encoder.tubelet)
        return cubes.unflatten(-1, (-1, self.encoder.in_channels)) * self.pixel_std + self.pixel_mean


def _moments(cubes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over a cube's pixels, per colour: [..., 1, C]. Epsilon is added to the deviation, unlike MAE.

    The deviation is the unbiased one.
    """
    return cubes.mean(-2, keepdim=True), cubes.std(-2, keepdim=True) + 1e-6
