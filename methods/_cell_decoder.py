"""What methods share that predict the pixels of the cells of an encoder's last map, with a light decoder (GreenMIM,
MixMIM)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mimbench.api import Encoder, check_mask_ratios
from mimbench_methods._patch_pixels import PatchDecoder, PatchDecoderConfig


class CellDecoderConfig(PatchDecoderConfig):
    """Masked cells and the decoder that predicts them; the defaults are those of the official MixMIM-B."""

    mask_ratio: float = Field(0.5, gt=0, lt=1)
    """Fraction of the cells of the encoder's last map that is masked."""


class CellDecoder(PatchDecoder):
    """A method with a decoder over the cells of the encoder's last map. A mask has the grid of these cells."""

    Config = CellDecoderConfig
    config: CellDecoderConfig

    def __init__(self, config: CellDecoderConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        check_mask_ratios(self)
        self.build_decoder(self.grid)

    @property
    def grid(self) -> tuple[int, ...]:
        return self.encoder.map_grid

    def decode(self, x: Tensor) -> Tensor:
        """Projected tokens [B, h * w, decoder_dim], mask tokens among them -> pixels [B, h, w, stride * stride * C]."""
        return self.head(self.norm(self.blocks(x + self.positions))).unflatten(1, self.grid)
