"""Encoders of official models in mimbench's options. Errors as in `OfficialCode.setup`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mimbench.api import InputError


def vit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ViT with timm's names of arguments, without its positions."""
    shared = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    rate = config.get("drop_path_rate", config.get("drop_path", 0.0))
    return {key: config[key] for key in shared} | {"drop_path": rate}


def relative_vit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ViT of BEiT, whose relative positions are shared by all layers."""
    require(config, qkv_bias=True, use_abs_pos_emb=False, use_mean_pooling=False)
    require(config, use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    return vit_options(config) | {"position": "relative", "layer_scale": config.get("init_values") or None}


def swin_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Swin of SimMIM."""
    require(config, qkv_bias=True, ape=False, patch_norm=True)
    shared = ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio")
    return {key: config[key] for key in shared} | {
        "window": config["window_size"],
        "drop_path": config.get("drop_path_rate", config.get("drop_path", 0.0)),
    }


def resnet_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ResNet of timm 0.5.4, whose stem has 64 channels."""
    blocks = {"BasicBlock": ("basic", 1), "Bottleneck": ("bottleneck", 4)}
    if config["block"] not in blocks:
        raise InputError(f"mimbench's ResNet has no block {config['block']!r}; {' and '.join(blocks)}")
    block, expansion = blocks[config["block"]]
    require_values(config, stem_out=64, expansion=expansion)
    return {
        "block": block,
        "dims": config["planes"],
        "depths": config["layers"],
        "drop_path": config.get("drop_path", 0.0),
    }


def convnext_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ConvNeXt of facebookresearch/ConvNeXt, or of ConvNeXt-V2 if it has no initial LayerScale."""
    require_values(config, norm_eps=1e-6, grn_eps=1e-6)
    scale = config.get("layer_scale_init_value")
    return {
        "dims": config["dims"],
        "depths": config["depths"],
        "layer_scale": scale,
        "grn": scale is None,
        "drop_path": config.get("drop_path", 0.0),
    }


def require_stride(depths: Sequence[int], stated: int) -> None:
    """Raises InputError: a convolutional encoder of so many stages has another stride than its file states, px."""
    stride = 4 * 2 ** (len(depths) - 1)
    if stated != stride:
        raise InputError(f"{len(depths)} stages have a stride of {stride}, not {stated}")


def require(config: Mapping[str, Any], **values: bool) -> None:
    """Raises InputError: a switch is not at the only value that mimbench has."""
    for key, value in values.items():
        if bool(config.get(key, value)) is not value:
            raise InputError(f"mimbench's encoders have no {key} = {config[key]}")


def require_values(config: Mapping[str, Any], **values: float) -> None:
    """Raises InputError: a number is not the only one that mimbench has."""
    for key, value in values.items():
        if config.get(key, value) != value:
            raise InputError(f"mimbench's encoders have no {key} = {config[key]}, only {value:g}")
