"""Depth of a parameter, for layer decay: 0 the stem, 1 to N the blocks, N + 1 what comes after them.

The ids follow microsoft/SimMIM@d3e29bca, microsoft/unilm@768a3c87 (beit/) and facebookresearch/mae@efb2a806.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from mimbench.contract.encoder import Encoder
from mimbench.errors import InputError


def vit_layer(name: str, num_layers: int) -> int:
    """Depth of parameter `name` of a ViT with `num_layers` blocks, named as timm names it.

    A relative-position table shared by all blocks counts as coming after them, as the official code has it.
    """
    parts = name.split(".")
    if parts[0] in ("cls_token", "mask_token", "pos_embed", "patch_embed"):
        return 0
    if parts[0] == "blocks":
        return int(parts[1]) + 1
    return num_layers + 1


def swin_layer(name: str, depths: Sequence[int], *, downsample: Literal["end", "start"] = "end") -> int:
    """Depth of parameter `name` of a Swin with `depths` blocks a stage; blocks count through the stages.

    Patch merging belongs to the block before it. `downsample` says where the names put it: "end" of a
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


def with_drop_path(encoder: Encoder, rate: float) -> Encoder:
    """The same encoder, weights and all, with the drop path `rate`: the one it is fine-tuned with.

    Raises:
        InputError: its Config has no drop_path, or none of its blocks would drop.
    """
    if "drop_path" not in type(encoder.config).model_fields:
        if rate:
            raise InputError(f"drop_path {rate:g}: this {encoder.kind} encoder has no drop path; set it to 0")
        return encoder
    config = encoder.config.model_copy(update={"drop_path": rate})
    with torch.random.fork_rng(devices=[]), next(encoder.parameters()).device:
        rebuilt = type(encoder)(config, image_size=encoder.image_size, in_channels=encoder.in_channels)
    require_drop_path(rebuilt, rate)
    rebuilt.load_state_dict(encoder.state_dict())
    return rebuilt


def require_drop_path(model: nn.Module, rate: float) -> None:
    """Make sure that a drop path asked for is there: some module of `model` has a `drop_prob` above 0.

    Raises:
        InputError: `rate` is above 0 and nothing in `model` drops paths.
    """
    if rate > 0 and not any(getattr(module, "drop_prob", 0) for module in model.modules()):
        raise InputError(
            f"drop_path {rate:g} reaches no block of {type(model).__name__}; set it to 0, or take a deeper encoder"
        )
