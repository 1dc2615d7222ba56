"""Options of MaskFeat."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mimbench.api import MaskRatioConfig
from mimbench_methods._noise_masks import NoiseKind, NoiseMaskConfig
from mimbench_methods._token_decoder import TokenDecoderConfig


class MaskFeatConfig(TokenDecoderConfig, NoiseMaskConfig, MaskRatioConfig):
    """The paper's choices; the defaults are those of its ViT-B, with patches of 16 px."""

    bins: int = Field(9, ge=2)
    """Orientations, which share 180 degrees."""
    cell_size: int = Field(8, ge=1)
    """Side of the square that one histogram counts, px; it divides the encoder's stride."""
    colour: Literal["channels", "grey"] = "channels"
    """channels: histograms of each, side by side; grey: of their mean."""
    norm: Literal["l2", "l1", "none"] = "l2"
    """What makes the length of each histogram 1."""
    mask: Literal["block", "random", NoiseKind] = "block"
    """block: BEiT's rectangles, which may end short of the ratio; noise: ColorMAE's."""
    mask_ratio: float = Field(0.4, gt=0, lt=1)
    """Share of the patches that is masked. A patch is one cell of the encoder's last map."""
    min_block: int | None = Field(None, ge=1)
    """Block masks: least size of a block, in patches; absent: a fifth of the masked patches."""

    @model_validator(mode="after")
    def _consistent(self) -> MaskFeatConfig:
        self.check_noise(self.mask)
        return self
