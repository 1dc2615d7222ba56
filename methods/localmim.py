"""LocalMIM: several layers predict histograms of oriented gradients of masked patches, each at another scale."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import (
    Encoder,
    OfficialCode,
    StepOutput,
    at_least_float32,
    check_mask_ratios,
    count_visible,
    full_precision,
    init_xavier,
    mean_over_shares,
    random_mask,
    resize_mask,
    visible_indices,
)
from mimbench_methods._chosen_layers import rising_layers
from mimbench_methods._hog import Histograms
from mimbench_methods._localmim_options import LocalMIMConfig
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.localmim import OfficialLocalMIM


class LocalMIM(DecaysTokens):
    """Wang et al., Masked Image Modeling with Local Multi-Scale Reconstruction (CVPR 2023, arXiv:2303.05251).

    Reference code: no licence, its files name CC-BY-NC 4.0 (MAE's); not used here.
    """

    name: ClassVar[str] = "localmim"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "HOG of masked patches at several scales"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("decoder per scale",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.05251"
    reference: ClassVar[str] = "https://github.com/Haoqing-Wang/LocalMIM@314a6e558a8c47bf0ef146235e2ced8d01e27fe6"
    official: ClassVar[OfficialCode | None] = OfficialLocalMIM()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only"})
    Config = LocalMIMConfig
    config: LocalMIMConfig

    def __init__(self, config: LocalMIMConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        self.visible = count_visible(self)
        """Patches that the encoder sees of each image."""
        self.layers = rising_layers(encoder, config.layers)
        self.norms = nn.ModuleList(nn.LayerNorm(encoder.out_dim, eps=1e-6) for _ in config.layers[:-1])
        self.decoders = config.build_decoders(encoder)
        self.hogs = nn.ModuleList(
            Histograms(config.bins, cell, random_bias=config.random_bias) for cell in config.cells
        )
        init_xavier(encoder)

    def before_step(self, progress: float) -> None:
        if self.config.initial_mask_ratio is not None:
            self.visible = count_visible(self)

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        ratio = self.config.ratio_at(self.progress)
        return random_mask(batch, self.encoder.grid, ratio, generator, rounding="mae")

    def target(self, images: Tensor) -> Tensor:
        """[B, N, C * bins]: the histograms of each scale, row by row, one scale after the other.

        In float32 under autocast too.
        """
        with full_precision(images.device):
            return torch.cat([histograms(at_least_float32(images)) for histograms in self.hogs], 1)

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """What `target` lists, of masked and visible places."""
        return self._predict(images, visible_indices(resize_mask(mask, self.encoder.grid)))

    def forward(self, images: Tensor, mask: Tensor) -> StepOutput:
        """`mask` has as many masked patches as those of `sample_mask`, so that an accelerator is not synchronised."""
        target = self.target(images)
        keep = visible_indices(resize_mask(mask, self.encoder.grid), self.visible)
        return StepOutput(self.loss(self._predict(images, keep), target, mask))

    def _predict(self, images: Tensor, keep: Tensor) -> Tensor:
        """keep: int64 [B, K], the visible patches."""
        layers = self.encoder.forward_layers(self.encoder.embed(images), self.layers, keep=keep)
        outputs = [layer.sequence for layer in layers]
        outputs = [norm(output) for norm, output in zip(self.norms, outputs[:-1], strict=True)] + outputs[-1:]
        return torch.cat([decode(output, keep) for decode, output in zip(self.decoders, outputs, strict=True)], 1)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The sum of the losses of all scales."""
        return self.losses(prediction, target, mask).sum()

    def losses(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error of each scale, mean over its histograms, weighted by how much of each is masked: [scales]."""
        errors = (at_least_float32(prediction) - target).square().mean(-1)
        weights = [self.weights(mask, cell).to(errors) for cell in self.config.cells]
        parts = errors.split([weight.shape[1] for weight in weights], 1)
        return torch.stack(
            [
                (part * weight).sum() / mean_over_shares(weight.sum())
                for part, weight in zip(parts, weights, strict=True)
            ]
        )

    def weights(self, mask: Tensor, cell: int) -> Tensor:
        """The masked share of each square of `cell` px: bool [B, Gh, Gw] -> float [B, N], row by row."""
        side = self.encoder.image_size // cell
        finer = max(side, self.encoder.grid[0])
        shares = F.adaptive_avg_pool2d(resize_mask(mask, (finer, finer)).float(), side)
        return shares.flatten(1)
