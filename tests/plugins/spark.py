"""SparK (arXiv:2301.03580): a convolutional encoder sees visible cells only; a UNet predicts the masked ones."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Config, Encoder, Method, mean_over_masked, patchify, random_mask, resize_mask, visible_only


class SparKConfig(Config):
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    decoder_dim: int = Field(512, ge=8)
    """Channels of the decoder's coarsest map; each doubling of the grid halves them."""


class UpBlock(nn.Module):
    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)
        self.conv = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU6(),
            nn.Conv2d(dim, out_dim, 3, padding=1, bias=False), nn.BatchNorm2d(out_dim),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.up_sample(x))


class SparK(Method):
    """Tian et al., Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling."""

    name = "spark"
    version = "1"
    paper = "https://arxiv.org/abs/2301.03580"
    reference = "https://github.com/keyu-tian/SparK@a63e386f8e5186bc07ad7fce86e06b08f48a61ea"
    encoder_needs = frozenset({"pyramid", "sparse-convolution"})
    Config = SparKConfig
    config: SparKConfig

    def __init__(self, config: SparKConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        doublings = encoder.stride.bit_length() - 1  # strides are powers of two
        widths = [max(config.decoder_dim // 2**level, 1) for level in range(doublings + 1)]
        self.levels = [doublings - (stride.bit_length() - 1) for stride in reversed(encoder.pyramid_strides)]
        dims = encoder.pyramid_dims[::-1]
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for dim in dims)
        self.tokens = nn.ParameterList(nn.init.trunc_normal_(torch.empty(1, dim, 1, 1), std=0.02) for dim in dims)
        self.project = nn.ModuleList(
            nn.Conv2d(dim, widths[level], 3 if level else 1, padding=1 if level else 0)
            for dim, level in zip(dims, self.levels, strict=True)
        )
        self.blocks = nn.ModuleList(UpBlock(*widths[level : level + 2]) for level in range(doublings))
        self.pixels = nn.Conv2d(widths[-1], encoder.in_channels, 1)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        cells = self.encoder.image_size // self.encoder.stride
        return random_mask(batch, (cells, cells), self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, pixels], each cell normalised."""
        cells = patchify(images, self.encoder.stride)
        return (cells - cells.mean(-1, keepdim=True)) / (cells.var(-1, keepdim=True) + 1e-6).sqrt()

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        with visible_only(self.encoder, mask), visible_only(self.norms, mask):
            maps = [norm(x) for norm, x in zip(self.norms, reversed(self.encoder.pyramid(images)), strict=True)]
        x: Tensor | float = 0.0
        for level, block in enumerate(self.blocks):
            if level in self.levels:
                y, index = maps[self.levels.index(level)], self.levels.index(level)
                masked = resize_mask(mask, y.shape[-2:]).unsqueeze(1)
                x = x + self.project[index](torch.where(masked, self.tokens[index].to(y.dtype), y))
            x = block(x)
        return patchify(self.pixels(x), self.encoder.stride)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return mean_over_masked((prediction.float() - target).square().mean(-1), mask)
