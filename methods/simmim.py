"""SimMIM: predict the raw pixels of masked patches with a linear head."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    InputError,
    Method,
    OfficialCode,
    Stage,
    StepOutput,
    check_mask_ratios,
    mask_at_pixels,
    mask_grid,
    mean_over_shares,
)
from mimbench_methods._pixel_heads import upsampling
from mimbench_methods._simmim_options import SimMIMConfig
from mimbench_methods.official.simmim import OfficialSimMIM


class SimMIM(Method):
    """Xie et al., SimMIM: a Simple Framework for Masked Image Modeling (CVPR 2022, arXiv:2111.09886).

    Reference code: MIT; not used here.
    """

    name: ClassVar[str] = "simmim"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "pixels of masked patches"
    sees: ClassVar[str] = "all patches, masked ones as a token"
    networks: ClassVar[tuple[str, ...]] = ("linear head",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2111.09886"
    reference: ClassVar[str] = "https://github.com/microsoft/SimMIM@d3e29bcac950b83edc34ca33fe4404f38309052c"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"mask-tokens"})
    official: ClassVar[OfficialCode | None] = OfficialSimMIM()
    Config = SimMIMConfig
    config: SimMIMConfig

    def __init__(self, config: SimMIMConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        config.check_encoder(encoder)
        self.grid = mask_grid(encoder.image_size, config.mask_patch_size, encoder.patch_size)
        check_mask_ratios(self)
        self.visible = self.config.count_early(self)
        """Patches that the early blocks see of each image, if they see visible ones only."""
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, encoder.embed_dim))
        config.initialise(encoder, self.mask_token)
        self.pixels = config.build_target(encoder.in_channels)
        self.size = config.target_size or encoder.image_size
        self.decoder = config.build_head(encoder, self.pixels.outputs, upsampling(encoder, self.size))

    def prepare(self, stage: Stage) -> None:
        self.pixels.prepare(stage)

    def set_image_size(self, size: int) -> None:
        """Each cell of the linear and the MLP head predicts as many pixels at every size."""
        if self.config.head == "inverse-swin" and size != self.encoder.image_size:
            raise InputError('method.head "inverse-swin" is for images of one size; choose "linear" or "mlp"')
        if self._downsamples and size != self.encoder.image_size:
            raise InputError(f"method.target_size {self.size} px is for images of one size; leave it out")
        self.image_size = size
        self.grid = mask_grid(size, self.config.mask_patch_size, self.encoder.patch_size)
        check_mask_ratios(self)
        self.visible = self.config.count_early(self)

    def before_step(self, progress: float) -> None:
        if self.config.initial_mask_ratio is not None:
            self.visible = self.config.count_early(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        ratio = self.config.ratio_at(self.progress)
        return self.config.draw_mask(batch, self.grid, ratio, generator)

    def target(self, images: Tensor) -> Tensor:
        return self.pixels(F.interpolate(images, self.size, mode="area") if self._downsamples else images)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, outputs, S, S] for the target's size S; one output per channel if pixel values are predicted."""
        return self._predict(images, mask, None)

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`."""
        with torch.no_grad():
            target = self.target(images)
        return StepOutput(self.loss(self._predict(images, mask, self.visible), target, mask))

    def _predict(self, images: Tensor, mask: Tensor, count: int | None) -> Tensor:
        # Stems that overlap (ResNet's) would carry masked pixels into visible cells.
        visible = images.masked_fill(mask_at_pixels(mask, images), 0.0)
        return self.decoder(self.config.encode_masked(self.encoder, visible, mask, self.mask_token, count))

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean error over the masked pixels, pooled over the batch, as the official code has it."""
        error = self.pixels.error(prediction, target)
        if self.config.loss_area == "all":
            return error.mean()
        masked = mask_at_pixels(mask, error)
        return (error * masked).sum() / (mean_over_shares(masked.sum()) + 1e-5) / error.shape[1]

    def no_weight_decay(self) -> set[str]:
        """The official scripts decay the mask token with a ViT encoder, not with a Swin."""
        return super().no_weight_decay() | ({"mask_token"} if self.encoder.kind == "swin" else set())

    def reconstruct(self, images: Tensor, mask: Tensor) -> Tensor:
        predicted = self.pixels.decode(self.predict(images, mask).float())
        if self._downsamples:
            predicted = F.interpolate(predicted, images.shape[-2:], mode="nearest")
        return torch.where(mask_at_pixels(mask, images), predicted, images)

    @property
    def _downsamples(self) -> bool:
        return self.size != self.encoder.image_size
