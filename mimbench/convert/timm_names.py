"""An encoder's weights under timm's own names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mimbench.convert.apply import BODY
from mimbench.errors import InputError


def to_timm(state: Mapping[str, Tensor], position: str | None = None) -> dict[str, Tensor]:
    """Names as timm's Beit, VisionTransformer, SwinTransformer, ConvNeXt or ResNet has them.

    Args:
        state: the encoder's state dict.
        position: the encoder's option of that name, if it has one.

    Raises:
        InputError: a tensor that does not belong to a timm model, or positions that timm's ViT does not compute.
    """
    if position and position.endswith("rope"):
        raise InputError(f'encoder.position "{position}": timm\'s ViT has no such positions; it cannot be exported')
    foreign = next((name for name in state if not name.startswith(BODY)), None)
    if foreign:
        raise InputError(f"the encoder keeps {foreign!r}, which no timm model has: it cannot be exported")
    return {name.removeprefix(BODY): value for name, value in state.items()}
