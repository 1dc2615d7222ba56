"""Options of CrossMAE."""

from __future__ import annotations

from pydantic import Field, model_validator

from mimbench.api import Config, Depth, Encoder, InputError, Predictor


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

    def check_input(self, encoder: Encoder) -> None:
        """Raise InputError if the decoder reads what the encoder's first block gets, and the encoder hides it."""
        if self.use_input and "block-input" not in encoder.can:
            raise InputError(
                f"method.use_input needs an encoder that outputs what its first block gets, and a {encoder.kind} "
                'encoder does not; set method.use_input to false or encoder.name to "vit"'
            )

    def build_decoder(self, encoder: Encoder) -> Predictor:
        return Predictor(
            encoder.out_dim,
            encoder.patch_size**2 * encoder.in_channels,
            dim=self.decoder_dim,
            depth=self.decoder_depth,
            num_heads=self.decoder_heads,
            mlp_ratio=self.decoder_mlp_ratio,
            grid=encoder.grid,
            cross=True,
        )
