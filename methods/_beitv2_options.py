"""Options of BEiT v2."""

from __future__ import annotations

from pydantic import Field

from mimbench.api import Config, Depth
from mimbench_methods.tokenizers.vqkd_config import VQKDConfig


class BEiTv2Config(Config):
    """The defaults are those of the official ViT-B, with 14 x 14 patches."""

    hidden_patches: int = Field(75, ge=1)
    """Patches that are masked in an image: blocks, and single patches until the number is exact."""
    min_block: int = Field(16, ge=1)
    """Least size of a block, in patches."""
    early_layers: int = Field(9, ge=1)
    """After how many layers the late blocks take the patches; the class token is that of the last layer."""
    late_blocks: Depth = Field(2, ge=1)
    """Blocks of the second prediction. Only pretraining has them."""
    shared_head: bool = True
    """Both predictions have one norm and one linear head."""
    vqkd: VQKDConfig = VQKDConfig()
