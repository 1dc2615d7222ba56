"""Parts of Vision Transformers for methods to build with: blocks, fixed positions, official initial weights."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.errors import InputError

_RESIDUAL = re.compile(r"\bblocks\.(\d+)\.(attn\.proj|mlp\.fc2)$")


def transformer_blocks(
    dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float = 4.0,
    *,
    drop_path: float = 0.0,
    eps: float = 1e-6,
    layer_scale: float | None = None,
    key_bias: bool = True,
) -> nn.Sequential:
    """Pre-norm blocks over [B, N, dim], as a ViT has them: biases everywhere, exact GELU.

    Args:
        drop_path: rate of the last block; the rates rise from 0 in equal steps.
        layer_scale: initial value of LayerScale; None: none.
        key_bias: False leaves out the bias of keys, which the softmax cancels, as BEiT and VideoMAE do. Queries and
            values then have separate biases (`q_bias`, `v_bias`).

    Raises:
        InputError: `num_heads` does not divide `dim`.
    """
    from timm.models import beit, vision_transformer  # slow to import

    _check_heads(dim, num_heads)
    block_class: Any = vision_transformer.Block if key_bias else beit.Block
    options = {"mlp_ratio": mlp_ratio, "qkv_bias": True, "norm_layer": partial(nn.LayerNorm, eps=eps)}
    blocks = [
        block_class(dim, num_heads, **options, drop_path=rate, init_values=layer_scale)
        for rate in _drop_rates(drop_path, depth)
    ]
    mark_blocks(blocks)
    return nn.Sequential(*blocks)


class CrossBlock(nn.Module):
    """A pre-norm block whose tokens read a context and not each other (CrossMAE, arXiv:2401.14391, section 3.2)."""

    def __init__(
        self,
        dim: int,
        context_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        *,
        drop_path: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        """Raises InputError if `num_heads` does not divide `dim`."""
        from timm.layers import DropPath, Mlp  # slow to import

        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = nn.ModuleDict(
            {"q": nn.Linear(dim, dim), "kv": nn.Linear(context_dim, 2 * dim), "proj": nn.Linear(dim, dim)}
        )
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path1, self.drop_path2 = (DropPath(drop_path) if drop_path else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: [B, N, dim]. context: [B, K, context_dim]. Returns [B, N, dim]."""
        query = self.attn["q"](self.norm1(x)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        key, value = self.attn["kv"](context).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.drop_path1(self.attn["proj"](read))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def cross_blocks(
    dim: int, context_dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0, *, drop_path: float = 0.0
) -> nn.ModuleList:
    """Blocks whose tokens [B, N, dim] read a context [B, K, context_dim] (CrossMAE); call each as block(x, context).

    Args:
        drop_path: rate of the last block; the rates rise from 0 in equal steps.

    Raises:
        InputError: `num_heads` does not divide `dim`.
    """
    rates = _drop_rates(drop_path, depth)
    blocks = [CrossBlock(dim, context_dim, num_heads, mlp_ratio, drop_path=rate) for rate in rates]
    mark_blocks(blocks)
    return nn.ModuleList(blocks)


def _check_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise InputError(f"{dim} channels cannot be shared by {num_heads} heads; choose a multiple")


def _drop_rates(drop_path: float, depth: int) -> list[float]:
    return [drop_path * index / max(depth - 1, 1) for index in range(depth)]


def sincos_positions(grid: tuple[int, ...], dim: int, *, rows_first: bool = False) -> Tensor:
    """MAE's fixed 2-D sin-cos positions [1, 1 + h*w, dim].

    Channels, a quarter each: sine and cosine of the column, sine and cosine of the row. The class token, which
    comes first, has zeros.

    Args:
        rows_first: the channels of the row come before those of the column, as in CAE.

    Raises:
        InputError: `dim` is not a multiple of 4.
    """
    from timm.layers import build_sincos2d_pos_embed  # slow to import

    if dim % 4:
        raise InputError(f"sin-cos positions need a number of channels divisible by 4, not {dim}")
    # timm lists the patches column by column if columns come first.
    by_column = build_sincos2d_pos_embed(list(grid), dim, reverse_coord=True, interleave_sin_cos=True)
    patches = by_column.unflatten(0, (grid[1], grid[0])).transpose(0, 1).flatten(0, 1)
    if rows_first:
        patches = patches.roll(dim // 2, 1)
    return torch.cat((torch.zeros(1, dim), patches)).unsqueeze(0)


@torch.no_grad()
def init_xavier(module: nn.Module) -> None:
    """MAE's initial weights: Xavier uniform, a patch embedding as the linear layer that it is; tokens normal, 0.02.

    From the global torch generator. facebookresearch/mae@efb2a806, models_mae.py.
    """
    for part in _layers(module):
        nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
    for name, parameter in module.named_parameters():
        if name.endswith("_token"):
            nn.init.normal_(parameter, std=0.02)


@torch.no_grad()
def init_truncated(module: nn.Module, std: float = 0.02) -> None:
    """BEiT's initial weights: normal, cut at one `std`; what block i adds to the residual, over sqrt(2 i).

    From the global torch generator. microsoft/unilm@768a3c87, beit/modeling_pretrain.py.
    """
    for part in _layers(module):
        nn.init.trunc_normal_(part.weight, std=std, a=-std, b=std)
    for name, parameter in module.named_parameters():
        if name.endswith("_token"):
            nn.init.trunc_normal_(parameter, std=std, a=-std, b=std)
    for name, part in module.named_modules():
        if match := _RESIDUAL.search(name):
            part.weight.div_(math.sqrt(2 * (int(match[1]) + 1)))


@torch.no_grad()
def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initial weights of I-JEPA: normal with `std` in every linear layer, convolution and token, biases zero.

    From the global torch generator. facebookresearch/ijepa@52c1ae95, src/helper.py.
    """
    for part in _layers(module):
        nn.init.trunc_normal_(part.weight, std=std)  # cut at two units, which is far outside
    for name, parameter in module.named_parameters():
        if name.endswith("_token"):
            nn.init.trunc_normal_(parameter, std=std)


def _layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """Linear layers and convolutions, their biases set to zero."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers
