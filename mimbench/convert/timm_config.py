"""An encoder as a model of timm with arguments, for the config.json from which timm builds it again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mimbench.contract import InputConfig
from mimbench.errors import InputError


def timm_config(encoder: Mapping[str, Any], images: InputConfig, channels: int) -> dict[str, Any]:
    """The content of config.json in timm's format, for weights that `to_timm` named.

    Args:
        encoder: name and options, as the card of a checkpoint has them.
        images: how images reach the encoder.
        channels: of the images.

    Raises:
        InputError: no model of timm with arguments of plain data is this encoder.
    """
    architecture, arguments = _model(encoder)
    size = images.image_size
    return {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [channels, size, size],
            "mean": _per_channel(images.mean, channels),
            "std": _per_channel(images.std, channels),
            "interpolation": images.eval_interpolation,
            "crop_pct": _crop_share(size, images.eval_resize or round(size * 256 / 224)),
            "num_classes": 0,
            # timm's networks of patches are built for one size, which is 224 px unless this is said.
            "fixed_input_size": encoder["name"] in ("vit", "swin"),
        },
    }


def _model(encoder: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if encoder["name"] == "timm":
        return str(encoder["model"]).partition(".")[0], dict(encoder.get("arguments", {}))
    described = _KINDS.get(encoder["name"])
    if described is None:
        raise InputError(
            f"encoder {encoder['name']!r} is no model of timm, so that a pushed one could not be loaded; write its "
            "weights with --output"
        )
    return described(encoder)


def _vit(encoder: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    position = encoder["position"]
    shape = {name: encoder[name] for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
    shape["init_values"] = encoder.get("layer_scale") or 0  # timm leaves arguments out that are None
    if position in ("relative", "relative-per-block"):
        is_shared = position == "relative"
        tables = {"use_abs_pos_emb": False, "use_shared_rel_pos_bias": is_shared, "use_rel_pos_bias": not is_shared}
        return "beit_base_patch16_224", {**shape, **tables, "global_pool": "token"}
    if position not in ("sincos", "sincos-rows-first", "learned"):
        raise InputError(f'encoder.position "{position}": timm\'s ViT has no such positions; it cannot be pushed')
    has_token = encoder.get("class_token", True)
    registers = encoder.get("class_tokens", 1) - 1 if has_token else encoder.get("registers", 0)
    tokens = {"class_token": has_token, "reg_tokens": registers, "no_embed_class": not has_token}
    # Without a class token, timm would put the final norm after the pooling.
    pooling = {"global_pool": "token"} if has_token else {"global_pool": "avg", "fc_norm": False}
    biases = {} if encoder.get("bias", True) else {"qkv_bias": False, "proj_bias": False}
    return "vit_base_patch16_224", {**shape, **tokens, **pooling, **biases}


def _swin(encoder: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if encoder.get("norm_eps", 1e-5) != 1e-5:
        raise InputError(
            f"encoder.norm_eps {encoder['norm_eps']:g} cannot be said in timm's config.json; write the weights with "
            "--output"
        )
    window = encoder["window"]
    shape = {name: encoder[name] for name in ("patch_size", "embed_dim", "depths", "num_heads", "mlp_ratio")}
    windows = window if isinstance(window, int) else [[side, side] for side in window]
    return "swin_base_patch4_window7_224", {**shape, "window_size": windows}


def _convnext(encoder: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    shape = {name: encoder[name] for name in ("patch_size", "dims", "depths")}
    shape |= {"use_grn": encoder.get("grn", False), "head_norm_first": True}  # the final norm, before the pooling
    scale = encoder.get("layer_scale")
    # timm's second version is the one without layer scale.
    return ("convnextv2_base", shape) if scale is None else ("convnext_base", {**shape, "ls_init_value": scale})


def _resnet(encoder: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not encoder.get("stem_pool", True):
        raise InputError(
            "encoder.stem_pool = false cannot be said in timm's config.json; write the weights with --output"
        )
    name = "resnet18" if encoder["block"] == "basic" else "resnet50"
    return name, {"layers": encoder["depths"], "channels": encoder["dims"]}


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]] = {
    "vit": _vit,
    "swin": _swin,
    "convnext": _convnext,
    "resnet": _resnet,
}


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [values[0]] * channels


def _crop_share(size: int, resized: int) -> float:
    """A share for which size / share, rounded down, is `resized` px."""
    share = size / resized
    return share if math.floor(size / share) == resized else math.nextafter(share, 0)
