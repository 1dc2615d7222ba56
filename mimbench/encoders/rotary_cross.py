"""A block whose tokens read a context, with rotary positions (CAPI, arXiv:2502.08769)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.encoders.rope import rotate


class RotaryCrossBlock(nn.Module):
    """A pre-norm block of RMSNorms without biases. Tokens of one image do not see each other."""

    def __init__(self, dim: int, context_dim: int, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        from timm.layers import DropPath, Mlp  # slow to import

        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.RMSNorm(dim, eps=1e-5)
        self.attn = nn.ModuleDict(
            {
                name: nn.Linear(context_dim if name in ("k_proj", "v_proj") else dim, dim, bias=False)
                for name in ("q_proj", "k_proj", "v_proj", "proj")
            }
        )
        self.norm2 = nn.RMSNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), bias=False)
        # Two modules: in a compiled block each one gets its own random factors from outside.
        self.drop_path1, self.drop_path2 = (DropPath(drop_path) if drop_path else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, context: Tensor, table: Tensor, context_table: Tensor) -> Tensor:
        """x: [B, T, dim]. context: [B, M, context_dim]. Rotary tables [B, 1, T or M, 2 * head_dim]. Returns as x."""

        def split(name: str, tokens: Tensor) -> Tensor:
            return self.attn[name](tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

        value = split("v_proj", context)
        query = rotate(split("q_proj", self.norm1(x)), table).to(value.dtype)
        key = rotate(split("k_proj", context), context_table).to(value.dtype)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.drop_path1(self.attn["proj"](read))
        return x + self.drop_path2(self.mlp(self.norm2(x)))
