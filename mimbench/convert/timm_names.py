"""An encoder's weights under timm's own names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from mimbench.convert.apply import BODY
from mimbench.errors import InputError


def to_timm(state: Mapping[str, Tensor], options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Tensor]:
    """Names as timm's Beit, VisionTransformer, SwinTransformer, ConvNeXt or ResNet has them.

    Of several class tokens, all but the first become register tokens with positions, as timm's VisionTransformer has
    them with the arguments reg_tokens and no_embed_class=False.

    Args:
        state: the encoder's state dict.
        options: those of the encoder, as its checkpoint's card holds them.

    Raises:
        InputError: a tensor that does not belong to a timm model, or an option that timm's model lacks.
    """
    position = str(options.get("position", ""))
    if position.endswith("rope"):
        raise InputError(f'encoder.position "{position}": timm\'s ViT has no such positions; it cannot be exported')
    if options.get("post_norm"):
        raise InputError("encoder.post_norm: timm's ViT has no such blocks; it cannot be exported")
    if options.get("norm", "layer") != "layer":
        raise InputError(
            f'encoder.norm "{options["norm"]}": timm\'s ViT has weights in its final norm; it cannot be exported'
        )
    if options.get("registers") and options.get("class_token", True):
        raise InputError(
            "encoder.registers: timm's ViT has no registers beside a class token that has a position; it cannot be "
            "exported"
        )
    if position == "sincos-and-relative" or not options.get("shift", True):
        option = f'encoder.position "{position}"' if options.get("shift", True) else "encoder.shift = false"
        raise InputError(f"{option}: timm's Swin has no such option; it cannot be exported")
    foreign = next((name for name in state if not name.startswith(BODY)), None)
    if foreign:
        raise InputError(f"the encoder keeps {foreign!r}, which no timm model has: it cannot be exported")
    named = {name.removeprefix(BODY): value for name, value in state.items()}
    tokens = named.get("cls_token")
    if tokens is not None and tokens.shape[1] > 1:
        named |= {"cls_token": tokens[:, :1].clone(), "reg_token": tokens[:, 1:].clone()}
    return named
