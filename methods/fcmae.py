"""FCMAE: a ConvNeXt V2 sees the visible patches by sparse convolution; a light decoder predicts the masked ones."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.api import (
    Depth,
    Encoder,
    MaskRatioConfig,
    OfficialCode,
    check_mask_ratios,
    convnext_blocks,
    random_mask,
    visible_only,
)
from mimbench_methods._chosen_layers import freeze_final_norm
from mimbench_methods._convnext_weights import init_encoder, init_layer
from mimbench_methods._patch_pixels import PatchPixels
from mimbench_methods._sparse_encoders import cell_grid
from mimbench_methods.official.fcmae import OfficialFCMAE


class FCMAEConfig(MaskRatioConfig):
    """The defaults are those of the official code."""

    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of masked patches, which are as large as a cell of the encoder's last map."""
    norm_pixels: bool = True
    """Predict each patch's pixels normalised by that patch's own mean and variance."""
    decoder_dim: int = Field(512, ge=1)
    decoder_depth: Depth = Field(1, ge=0)
    init: Literal["official", "encoder"] = "official"
    """Initial weights of the encoder and of convolutions: those of the official script, of which most have a standard
    deviation of 0.88; or the encoder's own, with 0.02 in the decoder."""


class FCMAE(PatchPixels):
    """Woo et al., ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders (CVPR 2023,
    arXiv:2301.00808).

    The reference code has the MIT licence; nothing of it is used here.
    """

    name: ClassVar[str] = "fcmae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    sees: ClassVar[str] = "visible patches, by sparse convolution"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2301.00808"
    reference: ClassVar[str] = (
        "https://github.com/facebookresearch/ConvNeXt-V2@2553895753323c6fe0b2bf390683f5ea358a42b9"
    )
    official: ClassVar[OfficialCode | None] = OfficialFCMAE()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"sparse-convolution", "response-norm"})
    waivers: ClassVar = {
        "images_of_a_batch_are_independent": "as officially, response norms count the visible cells of the whole batch"
    }
    Config = FCMAEConfig
    config: FCMAEConfig

    def __init__(self, config: FCMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        freeze_final_norm(encoder)
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, config.decoder_dim, 1, 1), std=0.02))
        self.project = nn.Conv2d(encoder.out_dim, config.decoder_dim, 1)
        self.decoder = convnext_blocks(config.decoder_dim, config.decoder_depth)
        self.head = nn.Conv2d(config.decoder_dim, encoder.stride**2 * encoder.in_channels, 1)
        is_official = config.init == "official"
        for module in (self.project, *self.decoder.modules(), self.head):
            if isinstance(module, nn.Conv2d):
                init_layer(module, 1.0 if is_official else 0.02)
        if is_official:
            init_encoder(encoder)

    def set_image_size(self, size: int) -> None:
        self.image_size = size
        check_mask_ratios(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        grid, ratio = cell_grid(self.encoder, self.image_size), self.config.ratio_at(self.progress)
        return random_mask(batch, grid, ratio, generator, rounding="mae", noise="normal")

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """The last map before the final norm, [B, D, h, w]. Masked cells have no meaning."""
        with visible_only(self.encoder, mask, response_norm="batch"):
            return self.encoder.layers(images, final_norm=False)[-1].dense

    def decode(self, latent: Tensor, mask: Tensor) -> Tensor:
        """[B, stride * stride * C, h, w]."""
        x = self.project(latent)
        return self.head(self.decoder(torch.where(mask.unsqueeze(1), self.mask_token.to(x.dtype), x)))

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.decode(self.encode(images, mask), mask).permute(0, 2, 3, 1)

    def extra_weight_decay(self) -> set[str]:
        """The official script decays them in pretraining, since they have two axes there, and not in fine-tuning."""
        return {"*.grn.weight", "*.grn.bias"}
