"""CrossMAE: each of some masked patches reads the visible ones through cross-attention, and no other masked patch."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimbench.api import (
    Batch,
    Encoder,
    OfficialCode,
    StepOutput,
    draw_rows,
    init_xavier,
    masked_count,
    random_mask,
    resize_mask,
    visible_indices,
)
from mimbench_methods._chosen_layers import freeze_final_norm, rising_layers
from mimbench_methods._crossmae_options import CrossMAEConfig
from mimbench_methods._patch_pixels import PatchPixels
from mimbench_methods._places import put_at
from mimbench_methods._weight_decay import DecaysTokens
from mimbench_methods.official.crossmae import OfficialCrossMAE


class CrossMAE(PatchPixels, DecaysTokens):
    """Fu et al., Rethinking Patch Dependence for Masked Autoencoders (TMLR 2025, arXiv:2401.14391).

    Reference code: CC-BY-NC 4.0; not used here. No values that it computed were compared (docs/methods/crossmae.md).
    """

    name: ClassVar[str] = "crossmae"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of some masked patches"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("cross-attention decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2401.14391"
    reference: ClassVar[str] = "https://github.com/TonyLianLong/CrossMAE@6e1b329c27a9266010056019687a9174216a407b"
    official: ClassVar[OfficialCode | None] = OfficialCrossMAE()
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-only", "one-grid"})
    Config = CrossMAEConfig
    config: CrossMAEConfig

    def __init__(self, config: CrossMAEConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        cells, ratio = math.prod(encoder.grid), config.mask_ratio
        self.masked = masked_count(cells, ratio, "mae")
        self.visible = cells - self.masked
        self.predicted = self.masked - int(cells * (ratio - config.predicted_ratio))
        """Patches that a step predicts of each image, one or more."""
        self.layers = rising_layers(encoder, config.layers)
        config.check_input(encoder)
        depth = config.decoder_depth
        self.mix = nn.Linear(len(self.layers) + config.use_input, depth, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(encoder.out_dim, eps=1e-6) for _ in range(depth))
        self.decoder = config.build_decoder(encoder)
        init_xavier(self)
        freeze_final_norm(encoder)  # the decoder does not read it

    @property
    def pixel_patch(self) -> int:
        return self.encoder.patch_size

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        return random_mask(batch, self.encoder.grid, self.config.mask_ratio, generator, rounding="mae")

    def sample_predicted(self, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The masked patches that a step predicts, chosen uniformly: bool [B, h, w], as `mask`."""
        cells = mask.shape[1:]
        noise = draw_rows(lambda rows: torch.rand(rows, *cells, generator=generator, device=mask.device), len(mask))
        noise = noise.masked_fill(~mask, 2.0)
        chosen = noise.flatten(1).argsort(1)[:, : self.predicted]
        return torch.zeros_like(mask).flatten(1).scatter(1, chosen, True).view_as(mask)

    def step(self, batch: Batch, generator: torch.Generator) -> StepOutput:
        mask = self.sample_mask(len(batch.images), generator)
        return self(batch.images, mask, self.sample_predicted(mask, generator))

    def forward(self, images: Tensor, mask: Tensor, predicted: Tensor | None = None) -> StepOutput:
        """`predicted`: bool [B, h, w], as many masked patches as those of `sample_predicted`; None: all of them.

        `mask` has as many masked patches as those of `sample_mask`, so that an accelerator is not synchronised.
        """
        count = self.masked if predicted is None else self.predicted
        predicted = mask if predicted is None else predicted
        prediction = self._predict(images, mask, predicted, self.visible, count)
        return StepOutput(self.loss(prediction, self.target(images), predicted))

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """Pixels of all masked patches; zeros at visible ones."""
        return self._predict(images, mask, mask)

    def contexts(self, images: Tensor, keep: Tensor) -> list[Tensor]:
        """What each block of the decoder reads, [B, P + K, D]: its own mix of the encoder's layers, normalised.

        keep: int64 [B, K], the visible patches.
        """
        tokens = self.encoder.embed(images)
        maps = self.encoder.forward_layers(tokens, self.layers, keep=keep, final_norm=False)
        if self.config.use_input:
            maps.insert(0, self.encoder.block_input(tokens, keep=keep))
        mixed = self.mix(torch.stack([one.sequence for one in maps], -1))
        return [norm(one) for norm, one in zip(self.norms, mixed.unbind(-1), strict=True)]

    def _predict(
        self, images: Tensor, mask: Tensor, predicted: Tensor, visible: int | None = None, count: int | None = None
    ) -> Tensor:
        """[B, h, w, patch * patch * C] at the patches of `predicted`, zeros elsewhere; counts are per image."""
        grid = self.encoder.grid
        keep = visible_indices(resize_mask(mask, grid), visible)
        places = visible_indices(~resize_mask(predicted, grid), count)
        pixels = self.decoder(self.contexts(images, keep), keep, places)
        return put_at(places, pixels, pixels.new_zeros(()), math.prod(grid)).unflatten(1, grid)
