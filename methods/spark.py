"""SparK: a convolutional encoder sees the visible patches only; a UNet decoder predicts the masked ones."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    check_mask_ratios,
    patchify,
    random_mask,
    resize_mask,
    synchronise_batch_norms,
    visible_only,
)
from mimbench_methods._chosen_layers import freeze_final_norm
from mimbench_methods._map_layers import map_norm, map_projection
from mimbench_methods._patch_pixels import PatchPixels
from mimbench_methods._spark_options import SparKConfig
from mimbench_methods._sparse_encoders import cell_grid, stage_maps
from mimbench_methods._unet_decoder import UNetDecoder
from mimbench_methods.official.spark import OfficialSparK


class SparK(PatchPixels):
    """Tian et al., Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling (ICLR 2023,
    arXiv:2301.03580).

    The reference code has the MIT licence; nothing of it is used here.
    """

    name: ClassVar[str] = "spark"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    sees: ClassVar[str] = "visible patches, by sparse convolution"
    networks: ClassVar[tuple[str, ...]] = ("UNet decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2301.03580"
    reference: ClassVar[str] = "https://github.com/keyu-tian/SparK@a63e386f8e5186bc07ad7fce86e06b08f48a61ea"
    official: ClassVar[OfficialCode | None] = OfficialSparK()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"pyramid", "sparse-convolution"})
    Config = SparKConfig
    config: SparKConfig

    def __init__(self, config: SparKConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        freeze_final_norm(encoder)
        self.decoder = UNetDecoder(config.decoder_dim, encoder.stride, encoder.in_channels)
        dims = encoder.pyramid_dims[::-1]
        self.levels = [(encoder.stride // stride).bit_length() - 1 for stride in encoder.pyramid_strides[::-1]]
        """Level of the decoder at which each map of the encoder enters, the coarsest first."""
        self.norms = nn.ModuleList(map_norm(config.norm_kind(encoder), dim) for dim in dims)
        tokens = (torch.empty(1, dim, 1, 1) for dim in dims)
        self.tokens = nn.ParameterList(nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02) for token in tokens)
        self.project = nn.ModuleList(
            map_projection(dim, self.decoder.widths[level], level) for dim, level in zip(dims, self.levels, strict=True)
        )
        synchronise_batch_norms(self)  # as officially, in the encoder too

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        check_mask_ratios(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        grid, ratio = cell_grid(self.encoder, self.image_size), self.config.ratio_at(self.progress)
        return random_mask(batch, grid, ratio, generator, rounding="spark")

    def encode(self, images: Tensor, mask: Tensor) -> list[Tensor]:
        """The map of each stage, the finest first. Masked cells have no meaning."""
        with visible_only(self.encoder, mask):
            return stage_maps(self.encoder, images)

    def densify(self, maps: list[Tensor], mask: Tensor) -> list[Tensor]:
        """Maps with mask tokens at masked cells, projected to the decoder's channels, the coarsest first."""
        dense = []
        for index, x in enumerate(reversed(maps)):
            with visible_only(self.norms[index], mask):
                x = self.norms[index](x)
            masked = resize_mask(mask, x.shape[-2:]).unsqueeze(1)
            dense.append(self.project[index](torch.where(masked, self.tokens[index].to(x.dtype), x)))
        return dense

    def decode(self, dense: list[Tensor]) -> Tensor:
        """The predicted image [B, C, H, W], each of its patches normalised."""
        return self.decoder(dict(zip(self.levels, dense, strict=True)))

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.patches(self.decode(self.densify(self.encode(images, mask), mask)))

    def patches(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, h, w, stride * stride * C]."""
        return patchify(images, self.encoder.stride)

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {"tokens.*"}
