"""Options of UM-MAE."""

from __future__ import annotations

from pydantic import Field, model_validator

from mimbench.api import Depth, Encoder, InputError
from mimbench_methods._patch_pixels import PatchDecoderConfig


class UMMAEConfig(PatchDecoderConfig):
    """The defaults are those of the official Swin-T."""

    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the cells that is left out: always 0.75, three of each 2 x 2."""
    token_ratio: float = Field(0.25, ge=0, lt=1)
    """Share of the other cells that the encoder sees as a mask token; the number of visible ones is rounded down."""
    cell_size: int | None = Field(None, ge=1)
    """Side of a cell, px. Absent: half the encoder's stride, or its patch if that is larger."""
    decoder_depth: Depth = Field(2, ge=0)

    @model_validator(mode="after")
    def _has_one_ratio(self) -> UMMAEConfig:
        if self.mask_ratio != 0.75 or self.initial_mask_ratio is not None:
            raise ValueError("one of each 2 x 2 cells stays, so mask_ratio is 0.75 and has no initial_mask_ratio")
        return self

    def cell_of(self, encoder: Encoder) -> int:
        """Side of a cell, px."""
        return self.cell_size or max(encoder.patch_size, encoder.stride // 2)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise InputError if cells do not suit the encoder, or a compact grid does not suit its image."""
        cell = self.cell_of(encoder)
        if cell % encoder.patch_size or encoder.stride % cell:
            raise InputError(
                f"method.cell_size {cell} px must be a multiple of the encoder's patch, {encoder.patch_size} px, and "
                f"divide its stride, {encoder.stride} px"
            )
        if encoder.image_size % (2 * encoder.stride):
            raise InputError(
                f"input.image_size {encoder.image_size} px: um-mae encodes images of half the side, which must be a "
                f"multiple of the encoder's stride; choose a multiple of {2 * encoder.stride} px"
            )
