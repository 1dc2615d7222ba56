"""Depth of a parameter, for layer decay: 0 the stem, 1 to N the blocks, N + 1 what comes after them.

The ids follow microsoft/SimMIM@d3e29bca, microsoft/unilm@768a3c87 (beit/) and facebookresearch/mae@efb2a806.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

from mimbench.contract.encoder import Encoder


def vit_layer(name: str, num_layers: int) -> int:
    """Depth of parameter `name` of a ViT with `num_layers` blocks, named as timm names it.

    A relative-position table shared by all blocks counts as coming after them, as the official code has it.
    """
    parts = name.split(".")
    if parts[0] in ("cls_token", "reg_token", "mask_token", "pos_embed", "patch_embed", "norm_pre"):
        return 0
    if parts[0] == "blocks":
        return int(parts[1]) + 1
    return num_layers + 1


def swin_layer(name: str, depths: Sequence[int], *, downsample: Literal["end", "start"] = "end") -> int:
    """Depth of parameter `name` of a Swin with `depths` blocks per stage; blocks count through the stages.

    Patch merging belongs to the block before it. `downsample` says in which stage the names put it: "end" of a
    stage (the official models) or "start" of the next (timm since 0.9).
    """
    parts = name.split(".")
    if parts[0] in ("mask_token", "patch_embed"):
        return 0
    if parts[0] == "layers":
        stage = int(parts[1])
        if parts[2] == "blocks":
            return sum(depths[:stage]) + int(parts[3]) + 1
        return sum(depths[: stage + 1 if downsample == "end" else stage])
    return sum(depths) + 1


def encoder_layers(model: nn.Module, encoder: Encoder) -> Callable[[str], int]:
    """Depth by parameter name of `model`, which holds `encoder`; all outside it comes after the blocks.

    Raises:
        ValueError: `encoder` is no part of `model`.
    """
    for path, module in model.named_modules():
        if module is encoder:
            prefix = f"{path}." if path else ""
            break
    else:
        raise ValueError("the encoder is no part of the model")

    def layer_of(name: str) -> int:
        if not name.startswith(prefix):
            return encoder.num_layers + 1
        return encoder.layer_of(name.removeprefix(prefix))

    return layer_of
