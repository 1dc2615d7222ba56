"""timm's models that a ViT of mimbench runs: Beit for relative positions, VisionTransformer for the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.encoders.blocks import sincos_positions
from mimbench.errors import InputError

if TYPE_CHECKING:  # timm takes longer to import than torch, and only building and running a ViT needs it
    from timm.models.beit import Beit
    from timm.models.vision_transformer import VisionTransformer

    from mimbench.encoders.vit_config import ViTConfig

Grid = tuple[int, ...]


def _shared(config: ViTConfig, grid: Grid, in_channels: int) -> dict[str, Any]:
    """The arguments that timm's two models share."""
    return {
        "img_size": tuple(side * config.patch_size for side in grid),
        "patch_size": config.patch_size,
        "in_chans": in_channels,
        "num_classes": 0,
        "global_pool": "token",
        "embed_dim": config.embed_dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "qkv_bias": True,
        "mlp_ratio": config.mlp_ratio,
        "init_values": config.layer_scale,
        "drop_path_rate": config.drop_path,
        "attn_drop_rate": config.attention_dropout,
    }


def check_form(config: ViTConfig) -> None:
    """Raise InputError if an option of the blocks' form would do nothing."""
    ineffective = ["norm", "bias"] if config.position.startswith("relative") else []
    ineffective += [] if config.position in ("rope", "learned-and-rope") else ["rope_base"]
    for option in ineffective:
        if option not in config.left_out():
            raise InputError(f'encoder.{option} does nothing for encoder.position "{config.position}"; leave it out')
    if config.post_norm and config.norm != "layer":
        raise InputError(f'encoder.norm "{config.norm}" is not for encoder.post_norm; leave one of them out')


def build_body(config: ViTConfig, grid: Grid, in_channels: int) -> Beit | VisionTransformer:
    build = _build_relative_body if config.position.startswith("relative") else _build_absolute_body
    body = build(config, grid, in_channels)
    mark_blocks(body.blocks)
    if config.drop_path_rule == "constant":
        _set_drop_path(body.blocks, [config.drop_path] * config.depth)
    return body


def further_blocks(config: ViTConfig, grid: Grid, drop_path: Sequence[float]) -> nn.ModuleList:
    """Blocks as those of `config`, with one rate of drop path each, and fresh initial weights."""
    if not drop_path:
        return nn.ModuleList()
    blocks = build_body(config.model_copy(update={"depth": len(drop_path)}), grid, 1).blocks
    _set_drop_path(blocks, drop_path)
    return nn.ModuleList(blocks)


def _set_drop_path(blocks: Sequence[Any], rates: Sequence[float]) -> None:
    from timm.layers import DropPath

    for block, rate in zip(blocks, rates, strict=True):
        block.drop_path1, block.drop_path2 = (DropPath(rate) if rate else nn.Identity() for _ in range(2))


def _build_relative_body(config: ViTConfig, grid: Grid, in_channels: int) -> Beit:
    """A model with relative position bias, shared by all blocks or one per block."""
    from timm.models.beit import Beit

    from mimbench.encoders.biased_attention import with_forms

    shared = config.position == "relative"
    body = Beit(
        **_shared(config, grid, in_channels),
        use_abs_pos_emb=False,
        use_shared_rel_pos_bias=shared,
        use_rel_pos_bias=not shared,
    )
    return with_forms(body)


def _build_absolute_body(config: ViTConfig, grid: Grid, in_channels: int) -> VisionTransformer:
    """A model with the other positions of `ViTConfig.position`."""
    from timm.models.beit import RelativePositionBias
    from timm.models.vision_transformer import VisionTransformer

    options: dict[str, Any] = {"reg_tokens": config.registers, "class_token": config.class_token}
    if not config.class_token:
        options["global_pool"] = "avg"  # timm's pooling, which is not used here, must have its tokens
        options["fc_norm"] = False
    if config.registers:
        options["no_embed_class"] = True
    if config.position.endswith("rope"):
        from mimbench.encoders.rotary_attention import RotaryAttention

        options["attn_layer"] = RotaryAttention
    if config.position in ("rope", "edge-rope"):
        options["pos_embed"] = "none"
    if config.post_norm:
        from mimbench.encoders.post_norm import PostNormBlock

        options |= {"block_fn": PostNormBlock, "final_norm": False}
    if not config.bias:
        options |= {"qkv_bias": False, "proj_bias": False}
    if config.norm == "rms":
        options["norm_layer"] = partial(nn.RMSNorm, eps=1e-5)
    body = VisionTransformer(**_shared(config, grid, in_channels) | options)
    if config.norm == "rms":
        body.norm = nn.RMSNorm(config.embed_dim, eps=1e-5, elementwise_affine=False)
    if config.class_tokens > 1:
        body.cls_token = nn.Parameter(torch.empty(1, config.class_tokens, config.embed_dim))
        nn.init.normal_(body.cls_token, std=1e-6)  # timm's
    if body.pos_embed is not None and config.class_token and (config.registers or config.class_tokens > 1):
        # timm gives positions to all prefix tokens or to none; here class tokens have some, registers have none.
        body.pos_embed = nn.Parameter(torch.empty(1, config.class_tokens + grid[0] * grid[1], config.embed_dim))
        nn.init.trunc_normal_(body.pos_embed, std=0.02)
    if config.position.startswith("sincos"):
        rows_first = config.position.startswith("sincos-rows-first")
        table = sincos_positions(grid, config.embed_dim, rows_first=rows_first)
        # The first row, of zeros, is for each class token.
        tokens = config.class_tokens * config.class_token
        table = torch.cat((table[:, :1].expand(-1, tokens, -1), table[:, 1:]), 1)
        body.pos_embed = nn.Parameter(table, requires_grad=False)
    if config.post_norm:  # timm's own option for this norm would take the bias from the patch embedding
        body.norm_pre = nn.LayerNorm(config.embed_dim, eps=1e-6)
    if config.position.endswith("-and-relative"):
        for block in body.blocks:
            block.attn.rel_pos_bias = RelativePositionBias(grid, config.num_heads)
    return body


def join_tokens(visible: Tensor, keep: Tensor, masked: Tensor, prefix: int) -> Tensor:
    """Tokens of all patches, [B, prefix + N, D]: those of visible patches at their places, mask tokens at the others.

    Args:
        visible: [B, prefix + K, D], prefix tokens first.
        keep: int64 [B, K], the places of visible patches.
        masked: [B, N, D], a mask token for every place.
    """
    places = keep.unsqueeze(-1).expand(-1, -1, visible.shape[-1])
    patches = masked.to(visible.dtype).scatter(1, places, visible[:, prefix:])
    return torch.cat((visible[:, :prefix], patches), 1)
