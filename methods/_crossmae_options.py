"""Options of CrossMAE."""

from __future__ import annotations

from pydantic import Field, model_validator

from mimbench.api import Config, Depth


class CrossMAEConfig(Config):
    """The defaults are those of the official command for a ViT-B."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is masked."""
    predicted_ratio: float = Field(0.25, gt=0, lt=1)
    """Share of all patches that a step predicts: a random part of the masked ones, or all if it equals mask_ratio."""
    layers: tuple[int, ...] | None = None
    """Indices of the encoder's layers that the decoder reads, rising; negative values count from the end, and the last
    is -1. Absent: all."""
    use_input: bool = True
    """Read the input of the encoder's first block as well."""
    norm_pixels: bool = True
    """Predict the pixels of each patch normalised by their own mean and variance."""
    decoder_dim: int = Field(512, ge=4)
    decoder_depth: Depth = Field(12, ge=1)
    decoder_heads: int = Field(16, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> CrossMAEConfig:
        if self.predicted_ratio > self.mask_ratio:
            raise ValueError(f"predicted_ratio {self.predicted_ratio:g} is above mask_ratio {self.mask_ratio:g}")
        if self.layers is not None and (not self.layers or self.layers[-1] != -1):
            raise ValueError("the last of layers must be -1, the encoder's last layer, so that all of it is trained")
        return self
