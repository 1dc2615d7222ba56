"""Heads that turn an encoder's final map into pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mimbench.api import Encoder, InputError, InverseSwin

SWIN_T = (2, 6, 2, 2)
"""Blocks of an inverse Swin-T, coarsest stage first."""


def upsampling(encoder: Encoder, size: int) -> int:
    """Pixels along a side that each cell of the encoder's map has to predict, for images of `size` px.

    Raises:
        InputError: the map's grid does not divide `size`, or `size` the image.
    """
    image, stride = encoder.image_size, encoder.stride
    if image % stride:
        raise InputError(f"input.image_size {image} px is not a multiple of the encoder's stride, {stride} px")
    cells = image // stride
    if size % cells or image % size:
        raise InputError(
            f"method.target_size {size} px must be a multiple of {cells}, the side of the encoder's map, "
            f"and divide the image, {image} px"
        )
    return size // cells


def linear_head(dim: int, outputs: int, upsample: int) -> nn.Sequential:
    """[B, dim, h, w] -> [B, outputs, h * upsample, w * upsample]: each cell predicts its own pixels."""
    return nn.Sequential(nn.Conv2d(dim, upsample**2 * outputs, kernel_size=1), nn.PixelShuffle(upsample))


def mlp_head(dim: int, outputs: int, upsample: int) -> nn.Sequential:
    """As the linear head, with a hidden layer as wide as the encoder's map."""
    return nn.Sequential(nn.Conv2d(dim, dim, kernel_size=1), nn.GELU(), *linear_head(dim, outputs, upsample))


def inverse_swin_head(
    encoder: Encoder, outputs: int, upsample: int, depths: Sequence[int] | None, window: int
) -> nn.Sequential:
    """Swin stages that double the grid, then a linear head.

    depths: blocks of each stage, coarsest first; None: Swin-T's, as many stages as `upsample` can be halved for.

    Raises:
        InputError: more stages than `upsample` or the encoder's channels can be halved for.
    """
    halvings = min(_twos(upsample), _twos(encoder.out_dim))
    depths = SWIN_T[: halvings + 1] if depths is None else depths
    if not 0 < len(depths) <= halvings + 1 or min(depths) < 1:
        raise InputError(
            f"method.head_depths {list(depths)}: here it takes 1 to {halvings + 1} stages of 1 block or more "
            f"(each cell predicts {upsample} x {upsample} px from {encoder.out_dim} channels)"
        )
    stages = InverseSwin(encoder.out_dim, encoder.image_size // encoder.stride, depths, window=window)
    return nn.Sequential(stages, *linear_head(stages.out_dim, outputs, upsample // stages.upsample))


def _twos(number: int) -> int:
    """How often `number` can be halved."""
    return (number & -number).bit_length() - 1
