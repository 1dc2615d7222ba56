"""Parts of Vision Transformers for methods to build with: blocks, fixed positions, official initial weights."""

from __future__ import annotations

import math
import re
from functools import partial

import torch
from torch import Tensor, nn

from mimbench.errors import InputError

_RESIDUAL = re.compile(r"\bblocks\.(\d+)\.(attn\.proj|mlp\.fc2)$")


def transformer_blocks(
    dim: int, depth: int, num_heads: int, mlp_ratio: float = 4.0, *, eps: float = 1e-6
) -> nn.Sequential:
    """Pre-norm blocks over [B, N, dim], as a ViT has them: biases everywhere, exact GELU.

    Raises:
        InputError: `num_heads` does not divide `dim`.
    """
    from timm.models.vision_transformer import Block  # slow to import

    if dim % num_heads:
        raise InputError(f"{dim} channels cannot be shared by {num_heads} heads; choose a multiple")
    norm = partial(nn.LayerNorm, eps=eps)
    return nn.Sequential(*(Block(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)))


def sincos_positions(grid: tuple[int, ...], dim: int) -> Tensor:
    """MAE's fixed 2-D sin-cos positions [1, 1 + h*w, dim].

    Channels, a quarter each: sine and cosine of the column, sine and cosine of the row. The class token, which
    comes first, has zeros.

    Raises:
        InputError: `dim` is not a multiple of 4.
    """
    from timm.layers import build_sincos2d_pos_embed  # slow to import

    if dim % 4:
        raise InputError(f"sin-cos positions need a number of channels divisible by 4, not {dim}")
    # timm lists the patches column by column if columns come first.
    by_column = build_sincos2d_pos_embed(list(grid), dim, reverse_coord=True, interleave_sin_cos=True)
    patches = by_column.unflatten(0, (grid[1], grid[0])).transpose(0, 1).flatten(0, 1)
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


def _layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """Linear layers and convolutions, their biases set to zero."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers
