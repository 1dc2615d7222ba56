"""SparK: a convolutional encoder sees the visible patches only; a UNet decoder predicts the masked ones."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    MaskRatioConfig,
    OfficialCode,
    check_mask_ratios,
    patchify,
    random_mask,
    resize_mask,
    synchronise_batch_norms,
    visible_only,
)
from mimbench_methods._patch_pixels import PatchPixels
from mimbench_methods._sparse_encoders import cell_grid, freeze_final_norm, stage_maps
from mimbench_methods._unet_decoder import UNetDecoder
from mimbench_methods.official.spark import OfficialSparK


class SparKConfig(MaskRatioConfig):
    """The defaults are those of the official code."""

    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of masked patches, which are as large as a cell of the encoder's last map."""
    decoder_dim: int = Field(768, ge=2)
    """Channels of the decoder's coarsest map; each doubling of the map halves them."""
    norm: Literal["encoder", "batch", "layer", "none"] = "encoder"
    """Norm of each encoder map before the decoder. encoder: batch norm if the encoder has batch norms, else layer."""


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
        self.norms = nn.ModuleList(_norm(self._norm_kind(), dim) for dim in dims)
        tokens = (torch.empty(1, dim, 1, 1) for dim in dims)
        self.tokens = nn.ParameterList(nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02) for token in tokens)
        self.project = nn.ModuleList(
            _projection(dim, self.decoder.widths[level], level) for dim, level in zip(dims, self.levels, strict=True)
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

    def _norm_kind(self) -> str:
        if self.config.norm != "encoder":
            return self.config.norm
        has_batch_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.encoder.modules())
        return "batch" if has_batch_norms else "layer"


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map [B, C, h, w]; `visible_only` recognises it by its name, which is timm's."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _norm(kind: str, dim: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(dim) if kind == "batch" else LayerNorm2d(dim)


def _projection(dim: int, out_dim: int, level: int) -> nn.Module:
    """As officially: of the coarsest map one cell at a time, and nothing if it has the decoder's channels already."""
    if level:
        return nn.Conv2d(dim, out_dim, 3, padding=1)
    return nn.Identity() if dim == out_dim else nn.Conv2d(dim, out_dim, 1)
