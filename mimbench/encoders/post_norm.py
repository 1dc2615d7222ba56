"""A ViT block with its norms after the residual sums, as in data2vec 2.0."""

from __future__ import annotations

from timm.models.vision_transformer import Block
from torch import Tensor


class PostNormBlock(Block):
    """timm's block with other places of its norms: x = norm1(x + attention(x)), then norm2(x + mlp(x)).

    facebookresearch/fairseq@3d262bb, examples/data2vec/models/modalities/modules.py (layer_norm_first is false).
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """x: [B, N, D]."""
        x = self.norm1(x + self.drop_path1(self.ls1(self.attn(x, attn_mask=attn_mask, is_causal=is_causal))))
        return self.norm2(x + self.drop_path2(self.ls2(self.mlp(x))))
