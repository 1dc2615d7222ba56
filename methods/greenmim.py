"""GreenMIM: a Swin encodes the visible patches alone, and a light decoder reconstructs the masked ones.

Reference code: CC-BY-NC 4.0; not used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mimbench.api import (
    Depth,
    OfficialCode,
    draw_once,
    masked_count,
    random_order,
    resize_mask,
    visible_indices,
)
from mimbench_methods._cell_decoder import CellDecoder, CellDecoderConfig
from mimbench_methods.official.greenmim import OfficialGreenMIM


class GreenMIMConfig(CellDecoderConfig):
    """The defaults are those of the official Swin-B."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Fraction of the cells of the encoder's last map that is masked, the same ones in each image of a batch."""
    decoder_depth: Depth = Field(1, ge=0)
    decoder: Literal["corrected", "official"] = "corrected"
    """official: the decoder gets the visible tokens in other cells than their own, as the official code has it."""


class GreenMIM(CellDecoder):
    """Huang et al., Green Hierarchical Vision Transformer for Masked Image Modeling (NeurIPS 2022)."""

    name: ClassVar[str] = "greenmim"
    version: ClassVar[str] = "1"
    predicts: ClassVar[str] = "normalised pixels of masked patches"
    sees: ClassVar[str] = "visible patches"
    networks: ClassVar[tuple[str, ...]] = ("decoder",)
    paper: ClassVar[str] = "https://arxiv.org/abs/2205.13515"
    reference: ClassVar[str] = "https://github.com/LayneH/GreenMIM@b98101221822ff0c7a3543f6691946a06163fc88"
    encoder_needs: ClassVar[frozenset[str]] = frozenset({"visible-cells"})
    waivers: ClassVar[Mapping[str, str]] = {"masks_differ": "all images of a batch have one mask"}
    official: ClassVar[OfficialCode | None] = OfficialGreenMIM()
    eps: ClassVar[float] = 1e-6
    Config = GreenMIMConfig
    config: GreenMIMConfig

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """One mask for the batch: bool [batch, Gh, Gw].

        For the official decoder: int64, the place of each cell in the random order whose first cells are visible.
        """
        places = (
            draw_once(lambda: random_order(1, self.grid, generator))
            .argsort(1)
            .unflatten(1, self.grid)
            .expand(batch, -1, -1)
        )
        return places if self.config.decoder == "official" else self.masked_cells(places)

    def masked_cells(self, mask: Tensor) -> Tensor:
        return resize_mask(mask, self.grid) if mask.dtype == torch.bool else mask >= self._visible

    def predict(self, images: Tensor, mask: Tensor) -> Tensor:
        """[B, h, w, stride * stride * C]. Masks of images may differ if all mask the same number of cells."""
        x = self.project(self.encode(images, mask))
        places = self.places(mask)
        tokens = self.mask_token.to(x.dtype).expand(len(x), places.shape[1] - x.shape[1], -1)
        return self.decode(torch.cat((x, tokens), 1).gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[-1])))

    def places(self, mask: Tensor) -> Tensor:
        """Which of the decoder's tokens each cell gets, of those of `encode` and then mask tokens: int64 [B, h * w].

        For a bool mask, each visible cell gets its own. For the official decoder, those of the mask itself.
        """
        if mask.dtype != torch.bool:
            return mask.flatten(1)
        return self.masked_cells(mask).flatten(1).to(torch.uint8).argsort(dim=1, stable=True).argsort(1)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """The encoder's visible cells [B, K, out_dim], row by row."""
        # One mask that `sample_mask` has expanded to the batch is not compared with itself. The encoder needs it on the
        # host, so it is read once, before it is looked at.
        mask = mask[:1] if mask.stride(0) == 0 else mask
        cells = self.masked_cells(mask)
        keep = visible_indices(cells if mask.is_meta else cells.cpu(), self._visible if mask.is_meta else None)
        shared = len(keep) == 1 or keep.is_meta or bool((keep == keep[:1]).all())
        return self.encoder.encode_visible(self.encoder.embed(images), keep[:1] if shared else keep)

    def loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error, mean over each cell, then over the masked cells of the batch."""
        return super().loss(prediction, target, self.masked_cells(mask))

    def no_weight_decay(self) -> set[str]:
        """The official script decays neither the mask token nor the tables of relative positions."""
        tables = {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}
        return super().no_weight_decay() | tables | {"mask_token"}

    @property
    def _visible(self) -> int:
        """Visible cells per image, at the current mask ratio."""
        cells = self.grid[0] * self.grid[1]
        return cells - masked_count(cells, self.config.ratio_at(self.progress), "mae")
