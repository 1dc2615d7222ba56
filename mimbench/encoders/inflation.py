"""Weights of an image ViT as those of a video ViT, which then starts from what images taught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mimbench.errors import InputError

Rule = Literal["mean", "centre"]
_PATCHES, _POSITIONS, _CLASS = "body.patch_embed.proj.weight", "body.pos_embed", "body.cls_token"


def is_of_images(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of an encoder of images, whose patches are 2-D convolutions."""
    return _PATCHES in weights and weights[_PATCHES].ndim == 4


def inflate(weights: Mapping[str, Tensor], target: Mapping[str, Tensor], rule: Rule) -> dict[str, Tensor]:
    """An image ViT's weights by the names and shapes of a video ViT's.

    Still frames get the features that the image ViT gives them, up to a class token. Keys lose their bias, which adds
    the same number to all of a query's scores and so changes no attention. A class token that the video ViT lacks is
    left out.

    Args:
        weights: state dict of a `vit` with absolute positions and at most one class token.
        target: state dict of the video ViT.
        rule: of the patch embedding. mean: the same weights for each frame of a cube, divided by their number (I3D,
            arXiv:1705.07750, section 2.4). centre: those of frame floor(T / 2) are the image's, all others zero (ViViT,
            arXiv:2103.15691, section 3.4). Both repeat the spatial positions over time (the latter's section 3.4).

    Raises:
        InputError: the video ViT's positions are fixed, or the image ViT's are not a table with one row per patch.
    """
    if "body.pos_embed_spatial" not in target:
        raise InputError(
            "pretrain.start holds weights of an image encoder, whose positions have no place among fixed ones; set "
            "encoder.position to separate"
        )
    count = target["body.pos_embed_spatial"].shape[1]
    table = weights.get(_POSITIONS)
    if table is None or table.shape[1] not in (count, count + 1):
        rows = "none" if table is None else f"{table.shape[1]} rows"
        raise InputError(
            f"pretrain.start: the image encoder's table of positions has {rows}, and a frame has {count} patches; "
            'choose weights of a vit with encoder.position "learned" or "sincos", of the same input.image_size and '
            "encoder.patch_size"
        )
    prefix = table.shape[1] - count
    inflated = {
        _PATCHES: _over_time(weights[_PATCHES], target[_PATCHES].shape[2], rule),
        "body.pos_embed_spatial": table[:, prefix:],
        "body.pos_embed_temporal": torch.zeros_like(target["body.pos_embed_temporal"]),
    }
    if _CLASS in target and prefix:
        inflated |= {_CLASS: weights[_CLASS], "body.pos_embed_class": table[:, :1]}
    for name, value in weights.items():
        if name.endswith(".attn.qkv.bias"):
            queries, _, values = value.chunk(3)
            inflated |= {name.replace("qkv.bias", "q_bias"): queries, name.replace("qkv.bias", "v_bias"): values}
        elif name not in (_PATCHES, _POSITIONS, _CLASS):
            inflated[name.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2")] = value
    return inflated


def _over_time(patches: Tensor, frames: int, rule: Rule) -> Tensor:
    """[D, C, p, p] -> [D, C, frames, p, p]."""
    if rule == "mean":
        return patches.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
    cubes = patches.new_zeros(*patches.shape[:2], frames, *patches.shape[2:])
    cubes[:, :, frames // 2] = patches
    return cubes
