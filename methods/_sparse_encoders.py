"""What methods need of an encoder that convolves visible cells only."""

from __future__ import annotations

from torch import Tensor

from mimbench.api import Encoder, InputError


def stage_maps(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """The output of each stage before the final norm, the finest first; a stage ends with the last map of its size."""
    maps = {layer.dense.shape[-2:]: layer.dense for layer in encoder.layers(images, final_norm=False)}
    return list(maps.values())


def cell_grid(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """(rows, columns) of the encoder's last map for images of `image_size` px.

    Raises:
        InputError: the encoder's stride does not divide the images.
    """
    if image_size % encoder.stride:
        raise InputError(f"images of {image_size} px are no multiple of the encoder's stride, {encoder.stride} px")
    return (image_size // encoder.stride,) * 2
