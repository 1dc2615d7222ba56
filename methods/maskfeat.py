"""MaskFeat: predict the histograms of oriented gradients (HOG) of masked patches with a linear head."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    InputError,
    OfficialCode,
    at_least_float32,
    block_mask,
    check_mask_ratios,
    full_precision,
    init_xavier,
    mask_at_pixels,
    mean_over_masked,
    random_mask,
    replace_masked,
)
from mimbench_methods._hog import hog
from mimbench_methods._maskfeat_options import MaskFeatConfig
from mimbench_methods._noise_masks import is_noise
from mimbench_methods._slowfast_weights import init_as_slowfast
from mimbench_methods._token_decoder import TokenDecoder
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.maskfeat import OfficialMaskFeat


class MaskFeat(DecaysTokens):
    """Wei et al., Masked Feature Prediction for Self-Supervised Visual Pre-Training (CVPR 2022, arXiv:2112.09133).

    Reference code: Apache 2.0; not used here.
    """

    name: ClassVar[str] = "maskfeat"
    version: ClassVar[str] = "2"
    predicts: ClassVar[str] = "HOG of masked patches"
    sees: ClassVar[str] = "all patches, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2112.09133"
    reference: ClassVar[str] = "https://github.com/facebookresearch/SlowFast@adc55ca38a62a8bf3899a2d7c2dfbc9f9eee1ade"
    official: ClassVar[OfficialCode | None] = OfficialMaskFeat()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens", "separate-patches"})
    Config = MaskFeatConfig
    config: MaskFeatConfig

    def __init__(self, config: MaskFeatConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        if encoder.stride % config.cell_size:
            raise InputError(
                f"method.cell_size {config.cell_size} px does not divide a patch of the encoder's last map, "
                f"{encoder.stride} px"
            )
        self.grid = (encoder.image_size // encoder.stride,) * 2
        check_mask_ratios(self)
        channels = encoder.in_channels if config.colour == "channels" else 1
        shape = (1, encoder.in_channels, 1, 1) if config.masked == "colour" else (1, 1, 1, encoder.embed_dim)
        self.mask_token = nn.Parameter(torch.empty(shape))
        decoder = TokenDecoder(config, encoder) if config.decoder_depth else None
        dim = config.decoder_dim if decoder else encoder.out_dim
        self.head = nn.Linear(dim, channels * config.bins * (encoder.stride // config.cell_size) ** 2)
        if decoder:
            self.decoder = decoder
        if config.init == "xavier":
            init_xavier(self)
            return
        init_as_slowfast(encoder)
        for parameter in (self.mask_token, self.head.weight):
            nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.zeros_(self.head.bias)

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        self.grid = (size // self.encoder.stride,) * 2
        check_mask_ratios(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        ratio = self.config.ratio_at(self.progress)
        if is_noise(self.config.mask):
            return self.config.draw_noise_mask(self.config.mask, batch, self.grid, ratio, generator)
        if self.config.mask == "random":
            return random_mask(batch, self.grid, ratio, generator)
        count = max(1, round(self.grid[0] * self.grid[1] * ratio))
        return block_mask(batch, self.grid, count, generator, min_block=self.config.min_block or max(1, count // 5))

    def target(self, images: Tensor) -> Tensor:
        """[B, h, w, channels * bins * cells], ordered so; a patch's cells row by row. In float32 under autocast too."""
        config, images = self.config, at_least_float32(images)
        if config.colour == "grey":
            images = images.mean(1, keepdim=True)
        with full_precision(images.device):
            histograms = hog(images, config.bins, config.cell_size)
        if config.norm != "none":
            histograms = F.normalize(histograms, p=2 if config.norm == "l2" else 1, dim=2)
        side = self.encoder.stride // config.cell_size
        patches = histograms.unflatten(4, (-1, side)).unflatten(3, (-1, side))
        return patches.permute(0, 3, 5, 1, 2, 4, 6).flatten(3)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        if self.config.masked == "colour":
            tokens = self.encoder.embed(torch.where(mask_at_pixels(mask, images), self.mask_token, images))
        else:
            tokens = replace_masked(self.encoder.embed(images), mask, self.mask_token)
        features = self.encoder.forward_tokens(tokens)
        return self.head(self.decoder(features) if self.config.decoder_depth else features.dense.permute(0, 2, 3, 1))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over all masked patches of the batch together; 0 if none is masked."""
        return mean_over_masked((at_least_float32(prediction) - target).square().mean(-1), mask)
