"""Pixio: MAE whose masks are of whole blocks of patches, with a deep decoder and learned positions."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import Depth, Encoder, InputError, Method, OfficialCode, random_mask, resize_mask
from mimbench_methods._pixel_decoder import PixelDecoder, PixelDecoderConfig
from mimbench_methods.official.pixio import OfficialPixio


class PixioConfig(PixelDecoderConfig):
    """The defaults are those of the official ViT-H."""

    mask_block: int = Field(4, ge=1)
    """Side of the blocks that are masked or visible as a whole, in patches."""
    decoder_depth: Depth = Field(32, ge=0)


class Pixio(PixelDecoder):
    """Yang et al., In Pursuit of Pixel Supervision for Visual Pre-training (CVPR 2026, arXiv:2512.15715).

    Its several class tokens are an option of the encoder: encoder.class_tokens = 8. Reference code: FAIR Noncommercial
    Research License; not used here. No values that it computed were compared (docs/methods/pixio.md).
    """

    name: ClassVar[str] = "pixio"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked blocks of patches"
    networks: ClassVar[tuple[str, ...]] = ("deep decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2512.15715"
    reference: ClassVar[str] = "https://github.com/facebookresearch/pixio@14de94cbb0dcb4f8f6d788dbc51af7b7ed0f8ae6"
    official: ClassVar[OfficialCode | None] = OfficialPixio()
    Config = PixioConfig
    config: PixioConfig

    def __init__(self, config: PixioConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        del self.positions
        places = encoder.num_prefix_tokens + math.prod(encoder.grid)
        self.positions = nn.Parameter(torch.empty(1, places, config.decoder_dim))
        """Learned, [1, P + h * w, decoder_dim]: of the prefix tokens and then of the patches."""
        nn.init.trunc_normal_(self.positions, std=0.02)

    def set_image_size(self, size: int) -> None:
        Method.set_image_size(self, size)  # learned positions are for one size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Blocks of patches, the same number of them in each image."""
        grid, block = self.encoder.grid, self.config.mask_block
        if any(side % block for side in grid):
            shape = " x ".join(map(str, grid))
            raise InputError(
                f"method.mask_block {block} does not tile the grid of {shape} patches; change it or input.image_size"
            )
        blocks = tuple(side // block for side in grid)
        mask = random_mask(batch, blocks, self.config.ratio_at(self.progress), generator, rounding="mae")
        return resize_mask(mask, grid)

    def decoder_input(self, images: Tensor, keep: Tensor) -> Tensor:
        return torch.cat(self.decoder_tokens(images, keep), 1) + self.positions
