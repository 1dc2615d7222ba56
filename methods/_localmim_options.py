"""Options of LocalMIM."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from torch import nn

from mimbench.api import Depth, Encoder, MaskRatioConfig
from mimbench_methods._scale_decoder import ScaleDecoder, count_doublings


class LocalMIMConfig(MaskRatioConfig):
    """The defaults are those of the official ViT-B."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked."""
    layers: tuple[int, ...] = (1, 3, -3, -1)
    """Indices of the encoder's layers that predict, rising; negative values count from the end, and the last is -1."""
    cells: tuple[int, ...] = (4, 8, 16, 32)
    """Side of the squares whose histograms each of these layers predicts, px: a patch times or over a power of two, at
    most two patches."""
    bins: int = Field(9, ge=2)
    """Orientations, which share 180 degrees."""
    random_bias: bool = False
    """Add fixed random numbers to the gradients that the histograms count, as the official ViT-L does."""
    decoder_dim: int = Field(256, ge=4)
    decoder_depth: Depth = Field(1, ge=0)
    decoder_heads: int = Field(8, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> LocalMIMConfig:
        if len(self.layers) != len(self.cells):
            raise ValueError(f"{len(self.layers)} layers need as many cells, not {len(self.cells)}")
        if not self.layers or self.layers[-1] != -1:
            raise ValueError("the last of layers must be -1, the encoder's last layer")
        return self

    def build_decoders(self, encoder: Encoder) -> nn.ModuleList:
        """One per scale."""
        sizes: dict[str, Any] = {
            "dim": self.decoder_dim,
            "depth": self.decoder_depth,
            "num_heads": self.decoder_heads,
            "mlp_ratio": self.decoder_mlp_ratio,
            "outputs": self.bins * encoder.in_channels,
        }
        doublings = [count_doublings(cell, encoder) for cell in self.cells]
        return nn.ModuleList(ScaleDecoder(encoder, **sizes, doublings=count) for count in doublings)
