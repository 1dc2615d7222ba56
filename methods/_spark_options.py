"""Options of SparK."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from mimbench.api import Encoder, MaskRatioConfig


class SparKConfig(MaskRatioConfig):
    """The defaults are those of the official code."""

    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of masked patches, which are as large as a cell of the encoder's last map."""
    decoder_dim: int = Field(768, ge=2)
    """Channels of the decoder's coarsest map; each doubling of the map halves them."""
    norm: Literal["encoder", "batch", "layer", "none"] = "encoder"
    """Norm of each encoder map before the decoder. encoder: batch norm if the encoder has batch norms, else layer."""

    def norm_kind(self, encoder: Encoder) -> str:
        """batch, layer or none."""
        if self.norm != "encoder":
            return self.norm
        has_batch_norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules())
        return "batch" if has_batch_norms else "layer"
