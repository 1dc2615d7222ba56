"""MaskFeat: predict the histograms of oriented gradients (HOG) of masked patches with a linear head."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    InputError,
    MaskRatioConfig,
    Method,
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
from mimbench_methods._noise_masks import NoiseKind, NoiseMaskConfig, is_noise
from mimbench_methods._token_decoder import TokenDecoder, TokenDecoderConfig
from mimbench_methods.official.maskfeat import OfficialMaskFeat


class MaskFeatConfig(TokenDecoderConfig, NoiseMaskConfig, MaskRatioConfig):
    """The paper's choices; the defaults are those of its ViT-B, with patches of 16 px."""

    bins: int = Field(9, ge=2)
    """Orientations, which share 180 degrees."""
    cell_size: int = Field(8, ge=1)
    """Side of the square that one histogram counts, px; it divides the encoder's stride."""
    colour: Literal["channels", "grey"] = "channels"
    """channels: histograms of each, side by side; grey: of their mean."""
    norm: Literal["l2", "l1", "none"] = "l2"
    """What makes the length of each histogram 1."""
    mask: Literal["block", "random", NoiseKind] = "block"
    """block: BEiT's rectangles, which may end short of the ratio; noise: ColorMAE's."""
    mask_ratio: float = Field(0.4, gt=0, lt=1)
    """Share of the patches that is masked. A patch is one cell of the encoder's last map."""
    min_block: int | None = Field(None, ge=1)
    """Block masks: least size of a block, in patches; absent: a fifth of the masked patches."""

    @model_validator(mode="after")
    def _consistent(self) -> MaskFeatConfig:
        self.check_noise(self.mask)
        return self


class MaskFeat(Method):
    """Wei et al., Masked Feature Prediction for Self-Supervised Visual Pre-Training (CVPR 2022, arXiv:2112.09133)."""

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
        _init_weights(encoder)
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

    def no_weight_decay(self) -> set[str]:
        """The official recipe decays everything of two or more dimensions, tokens and positions included."""
        return set()


@torch.no_grad()
def _init_weights(encoder: Encoder) -> None:
    """The official initial weights of an encoder: normal, 0.02; biases of linear layers and norms start at 0.02.

    The bias of a convolution is as torch draws it, and that of the final norm is 0: officially this norm is part of the
    head. facebookresearch/SlowFast@287ec007 slowfast/models/video_model_builder.py, head_helper.py.
    """
    norms = [part for part in encoder.modules() if isinstance(part, nn.LayerNorm)]
    for part in encoder.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.constant_(part.bias, 0.0 if part in norms[-1:] else 0.02)
    for name, parameter in encoder.named_parameters():
        if name.endswith("_token"):
            nn.init.trunc_normal_(parameter, std=0.02)
