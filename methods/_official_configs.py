"""Arguments of the official models, as files of golden vectors note them, as mimbench's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mimbench.api import InputError, ModelSetup


def simmim_setup(config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
    """Of SimMIM with a ViT or a Swin."""
    is_swin = "depths" in config
    encoder = _swin_options(config) if is_swin else _relative_vit_options(config)
    method = {"mask_patch_size": meta.get("mask_patch_size", config["patch_size"])}
    return ModelSetup("simmim", "swin" if is_swin else "vit", config["img_size"], config["in_chans"], method, encoder)


def mae_setup(config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
    """Of MAE."""
    method = {
        "mask_ratio": config["mask_ratio"],
        "norm_pixels": config["norm_pix_loss"],
        "decoder_dim": config["decoder_embed_dim"],
        "decoder_depth": config["decoder_depth"],
        "decoder_heads": config["decoder_num_heads"],
        "decoder_mlp_ratio": config["mlp_ratio"],
    }
    encoder = _vit_options(config) | {"position": "sincos"}
    return ModelSetup("mae", "vit", config["img_size"], config["in_chans"], method, encoder)


def beit_setup(config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
    """Of BEiT; the mask does not matter, since golden vectors bring their own."""
    patches = (config["img_size"] // config["patch_size"]) ** 2
    method = {
        "hidden_patches": max(1, patches * 2 // 5),
        "min_block": 1,
        "kmeans": {"vocabulary": config["vocab_size"]},
    }
    return ModelSetup("beit", "vit", config["img_size"], config["in_chans"], method, _relative_vit_options(config))


def _vit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ViT of MAE."""
    shared = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    return {key: config[key] for key in shared} | {"drop_path": config.get("drop_path_rate", 0.0)}


def _relative_vit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ViT of BEiT or SimMIM, whose relative positions are shared by all layers."""
    _require(config, qkv_bias=True, use_abs_pos_emb=False, use_mean_pooling=False)
    _require(config, use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    return _vit_options(config) | {"position": "relative", "layer_scale": config.get("init_values") or None}


def _swin_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Swin of SimMIM."""
    _require(config, qkv_bias=True, ape=False, patch_norm=True)
    shared = ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio")
    return {key: config[key] for key in shared} | {
        "window": config["window_size"],
        "drop_path": config.get("drop_path_rate", 0.0),
    }


def _require(config: Mapping[str, Any], **values: bool) -> None:
    """Raises InputError: a switch is not at the only value that mimbench's encoders have."""
    for key, value in values.items():
        if bool(config.get(key, value)) is not value:
            raise InputError(f"mimbench's encoders have no {key} = {config[key]}")
