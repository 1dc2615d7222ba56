"""SimMIM: predict the raw pixels of hidden patches with a linear head."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mimbench.contract import Config, Encoder, Method
from mimbench.masks import mask_grid, random_mask, resize_mask


class SimMIMConfig(Config):
    """The paper's choices."""

    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of the mask patches that is hidden."""
    mask_patch_size: int = Field(32, ge=1)
    """Side of one mask patch, px."""


class SimMIM(Method):
    """Xie et al., SimMIM: a Simple Framework for Masked Image Modeling (CVPR 2022, arXiv:2111.09886)."""

    name: ClassVar[str] = "simmim"
    version: ClassVar[str] = "1"
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.09886"
    reference: ClassVar[str] = "https://github.com/microsoft/SimMIM@d3e29bcac950b83edc34ca33fe4404f38309052c"
    Config = SimMIMConfig
    config: SimMIMConfig

    def __init__(self, config: SimMIMConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.grid = mask_grid(encoder.image_size, config.mask_patch_size, encoder.patch_size)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, 1, encoder.embed_dim), std=0.02))
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.out_dim, encoder.stride**2 * encoder.in_channels, kernel_size=1),
            nn.PixelShuffle(encoder.stride),
        )

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.grid, self.config.mask_ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        return images

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        tokens = self.encoder.embed(images)
        hidden = resize_mask(mask, tokens.shape[1:3]).unsqueeze(-1)
        return self.decoder(self.encoder.encode(torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean absolute error over the hidden pixels, pooled over the batch, as the official code has it."""
        hidden = resize_mask(mask, target.shape[-2:]).unsqueeze(1)
        error = (prediction.float() - target).abs() * hidden
        return error.sum() / (hidden.sum() + 1e-5) / target.shape[1]

    def no_weight_decay(self) -> set[str]:
        """The official scripts decay the mask token with a ViT encoder, not with a Swin."""
        return super().no_weight_decay() | ({"mask_token"} if self.encoder.kind == "swin" else set())

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        hidden = resize_mask(mask, images.shape[-2:]).unsqueeze(1)
        return torch.where(hidden, self.predict(images, mask).float(), images)
