"""timm's attention with rotary positions."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from mimbench.encoders.rope import rotate


class RotaryAttention(Attention):
    """Attention whose queries and keys are rotated by their positions; parameters as in timm's `Attention`."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens [B, N, D] -> [B, N, D].

        Args:
            x: the tokens.
            attn_mask: a rotary table [1 or B, 1, N, 2 * channels of a head], which timm's blocks pass by this name.
            is_causal: not used.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if attn_mask is not None:
            query, key = (rotate(part, attn_mask).to(value.dtype) for part in (query, key))
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(self.norm(x)))
