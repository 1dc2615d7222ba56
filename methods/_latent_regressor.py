"""Blocks that predict the encoder's outputs at masked patches from those at visible ones (CAE)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.api import DropPath, InputError, mark_blocks


class RegressorBlock(nn.Module):
    """Queries of masked patches read visible and masked patches through cross-attention.

    Queries and keys contain positions, values do not. Norms of queries, keys and values are separate. After the
    attention a norm replaces what the residual carries.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, *, layer_scale: float | None, drop_path: float
    ) -> None:
        """Raises InputError if `num_heads` does not divide `dim`."""
        super().__init__()
        if dim % num_heads:
            raise InputError(f"{dim} channels cannot be shared by {num_heads} heads; choose a multiple")
        self.norm1_q, self.norm1_k, self.norm1_v, self.norm2_cross = (nn.LayerNorm(dim, eps=1e-6) for _ in range(4))
        self.cross_attn = CrossAttention(dim, num_heads)
        self.mlp_cross = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim, int(dim * mlp_ratio)), act=nn.GELU(), fc2=nn.Linear(int(dim * mlp_ratio), dim)
            )
        )
        self.drop_path1, self.drop_path2 = (DropPath(drop_path, scale_by_keep=False) for _ in range(2))
        # A tensor, since rates of blocks differ: a number would be part of a compiled graph, which all blocks share.
        self.register_buffer("keep_rate", torch.tensor(1 - drop_path), persistent=False)
        scale = torch.ones(dim) * (layer_scale or 1.0)
        self.gamma_1_cross = nn.Parameter(scale.clone(), requires_grad=layer_scale is not None)
        self.gamma_2_cross = nn.Parameter(scale.clone(), requires_grad=layer_scale is not None)

    def forward(self, queries: Tensor, context: Tensor, query_positions: Tensor, context_positions: Tensor) -> Tensor:
        """queries: [B, M, dim]; context: [B, N, dim]; positions: as these. Returns [B, M, dim]."""
        read = self.cross_attn(
            self.norm1_q(queries + query_positions), self.norm1_k(context + context_positions), self.norm1_v(context)
        )
        x = self.norm2_cross(queries + self._dropped(self.drop_path1, self.gamma_1_cross * read))
        return x + self._dropped(self.drop_path2, self.gamma_2_cross * self.mlp_cross(x))

    def _dropped(self, drop_path: nn.Module, branch: Tensor) -> Tensor:
        """In training, the branch of some samples is zero, and that of the others larger accordingly (drop path)."""
        return drop_path(branch) / self.keep_rate if self.training else branch


class CrossAttention(nn.Module):
    """Attention with separate weights for queries, keys and values, and no bias of the keys."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, M, dim], [B, N, dim], [B, N, dim] -> [B, M, dim]."""
        parts = (self.q(query) + self.q_bias, self.k(key), self.v(value) + self.v_bias)
        heads = [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts]
        return self.proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


@torch.no_grad()
def init_weights(module: nn.Module) -> None:
    """CAE's initial weights: Xavier uniform for linear layers, their biases zero; tokens normal, 0.02, cut at 0.02.

    So is the patch embedding. From the global torch generator. lxtGH/CAE@d7259714 models/modeling_cae.py, which
    overwrites the scaling of BEiT unless --fix_init_weight is given; no script gives it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.Conv2d):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-0.02, b=0.02)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)
    for name, parameter in module.named_parameters():
        if name.endswith("_token"):
            nn.init.trunc_normal_(parameter, std=0.02, a=-0.02, b=0.02)


def regressor_blocks(
    dim: int, depth: int, num_heads: int, mlp_ratio: float, *, layer_scale: float | None, drop_path: float
) -> nn.ModuleList:
    """`depth` blocks, whose drop path rises from 0 to `drop_path` in equal steps. Errors as `RegressorBlock`."""
    rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
    blocks = nn.ModuleList(
        RegressorBlock(dim, num_heads, mlp_ratio, layer_scale=layer_scale, drop_path=rate) for rate in rates
    )
    mark_blocks(blocks)
    return blocks
