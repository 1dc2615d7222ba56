"""Options of CAE."""

from __future__ import annotations

from pydantic import Field

from mimbench.api import Depth
from mimbench_methods.tokenizers import TokenizedConfig


class CAEConfig(TokenizedConfig):
    """The defaults are those of the official ViT-B, with 14 x 14 patches. Only the chosen tokenizer's table counts."""

    hidden_patches: int = Field(98, ge=1)
    """Patches that are masked in each image."""
    min_block: int = Field(16, ge=1)
    """Least size of a block, in patches, while that many are left to mask."""
    regressor_depth: Depth = Field(4, ge=1)
    decoder_depth: Depth = Field(4, ge=0)
    decoder_dim: int = Field(768, ge=4)
    """Channels of regressor and decoder. If the encoder has others, a linear layer and a norm come between."""
    decoder_heads: int = Field(12, ge=1)
    decoder_mlp_ratio: float = Field(4.0, gt=0)
    decoder_layer_scale: float | None = Field(0.1, gt=0)
    decoder_drop_path: float = Field(0.1, ge=0, lt=1)
    align_weight: float = Field(2.0, ge=0)
    """Weight of the difference between predicted and true outputs of the encoder."""
    momentum: float = Field(0.0, ge=0, le=1)
    """What the teacher keeps of itself at each step; 0: it is the encoder of the step before."""
