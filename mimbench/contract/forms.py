"""Forms of what plugins return: masks, images, labels, and an encoder's outputs.

Each function returns what is wrong, with the remedy, as the rest of a sentence whose subject is the value; None if
nothing is wrong. A plan and `mimbench check` use the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mimbench.contract.dataset import BYTES
from mimbench.contract.encoder import Encoder
from mimbench.contract.features import Features

PIXELS = (torch.uint8, torch.uint16, torch.float32)
"""Types of pixels."""
_AXES = {2: "rows, columns", 3: "frames, rows, columns"}
"""Number of axes of a grid -> their names."""


def describe_mask_problem(mask: Any, images: int, grid: Sequence[int]) -> str | None:
    """What is wrong with the masks of some images, such as "has dtype torch.float32; return bool [2, rows, columns]".

    Args:
        mask: should be bool [images, *cells], True = masked, with as many axes as `grid` after the first.
        images: number of images.
        grid: cells per axis of the encoder. Along each axis, one of both grids must be a multiple of the other.
    """
    form = f"return bool [{images}, {_AXES[len(grid)]}], True = masked, or define masked_cells"
    if not isinstance(mask, Tensor):
        return f"is a {type(mask).__name__}; {form}"
    if mask.dtype != torch.bool or mask.ndim != 1 + len(grid) or len(mask) != images:
        return f"is {mask.dtype} {list(mask.shape)} for {images} images; {form}"
    cells = tuple(mask.shape[1:])
    if any(not min(pair) or max(pair) % min(pair) for pair in zip(grid, cells, strict=True)):
        return (
            f"has {_cells(cells)} cells, and the encoder has {_cells(grid)}: neither is a multiple of the other; "
            "derive the mask's grid from self.encoder.grid"
        )
    return None


def describe_image_problem(image: Any, channels: int, pixel_range: tuple[float, float], frames: int = 1) -> str | None:
    """What is wrong with an image of a dataset, such as "has shape [28, 28]; return [1, H, W]".

    Args:
        image: should be [channels, H, W], or [channels, frames, H, W] if `frames` is above 1, of a type in `PIXELS`,
            with values within `pixel_range`.
        channels: of the dataset.
        pixel_range: values of black and of full brightness.
        frames: of the dataset.
    """
    if not isinstance(image, Tensor) or image.dtype not in PIXELS:
        return f"is {_form(image)}; return a tensor of uint8, uint16 or float32"
    if frames == 1 and image.ndim == 4 and image.shape[0] == channels:
        return f"has shape {list(image.shape)}, and frames is 1; set frames to {image.shape[1]}, or return an image"
    if frames > 1 and (image.ndim != 4 or tuple(image.shape[:2]) != (channels, frames)):
        return (
            f"has shape {list(image.shape)}, channels is {channels} and frames is {frames}; return "
            f"[{channels}, {frames}, H, W]"
        )
    if frames == 1 and (image.ndim != 3 or image.shape[0] != channels):
        return f"has shape {list(image.shape)}, and channels is {channels}; return [{channels}, H, W]"
    black, white = pixel_range
    if image.dtype == torch.uint8 and (black, white) != BYTES:
        return f"is uint8, and pixel_range is ({black:g}, {white:g}); leave it at (0, 255)"
    low, high = float(image.float().min()), float(image.float().max())
    if not (black < white and black <= low <= high <= white):  # so is NaN
        return (
            f"has pixels from {low:g} to {high:g}, and pixel_range is ({black:g}, {white:g}); set it to the values of "
            "black and of full brightness"
        )
    if image.dtype != torch.uint8 and (black, white) == BYTES and high <= 1:
        return f"has pixels from {low:g} to {high:g}, and pixel_range is (0, 255); set pixel_range = (0.0, 1.0)"
    return None


def describe_labels_problem(labels: Any, images: int, classes: int) -> str | None:
    """What is wrong with the labels of a split, which should be int64 [images] from 0 to `classes` - 1."""
    if problem := describe_attribute_problem(labels, images):
        return problem
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        return f"run from {low} to {high}, beyond 0 to {classes - 1} of the {classes} classes; number them from 0"
    return None


def describe_attribute_problem(values: Any, images: int) -> str | None:
    """What is wrong with an attribute of the samples of a split, which should be int64 [images]."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64 or values.shape != (images,):
        return f"are {_form(values)}; return int64 [{images}]"
    return None


def describe_tokens_problem(encoder: Encoder, tokens: Any, images: int) -> str | None:
    """What is wrong with the result of `embed`, which should be [images, *encoder.grid, embed_dim]."""
    return _describe_shape_problem("embed", tokens, (images, *encoder.grid, encoder.embed_dim))


def describe_layers_problem(function: str, encoder: Encoder, layers: Any, images: int) -> str | None:
    """What is wrong with the features of all layers, as `function` returns them: num_layers Features that fit.

    `dense` of the last one should be [images, out_dim, *map_grid], with one cell per `stride` px.
    """
    if not isinstance(layers, list | tuple) or not all(isinstance(one, Features) for one in layers):
        what = _form(layers) if not isinstance(layers, list | tuple) else f"a list of {_form(next(iter(layers)))}"
        return f"{function} returns {what}; return a list of mimbench.api.Features, such as Features.from_map(map)"
    if len(layers) != encoder.num_layers:
        return f"{function} returns {len(layers)} layers, and num_layers is {encoder.num_layers}; make them equal"
    for number, features in enumerate(layers):
        where = f"layer {number} of {function}: "
        if features.dense.ndim != 2 + len(encoder.grid) or len(features.dense) != images:
            axes = "h, w" if len(encoder.grid) == 2 else "T, h, w"
            return f"{where}dense has shape {list(features.dense.shape)}; return [{images}, D, {axes}]"
        dim = features.dense.shape[1]
        problem = _describe_shape_problem(f"{where}pooled", features.pooled, (images, dim)) or _describe_shape_problem(
            f"{where}prefix", features.prefix, (images, encoder.num_prefix_tokens, dim)
        )
        if problem:
            return problem
    where = f"layer {encoder.num_layers - 1} of {function}: "
    return _describe_shape_problem(f"{where}dense", layers[-1].dense, (images, encoder.out_dim, *encoder.map_grid))


def _describe_shape_problem(what: str, value: Any, shape: tuple[int, ...]) -> str | None:
    if not isinstance(value, Tensor):
        return f"{what} is a {type(value).__name__}; return a tensor {list(shape)}"
    if tuple(value.shape) != shape:
        return f"{what} has shape {list(value.shape)}, and by the declared sizes {list(shape)}; correct either"
    return None


def _form(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _cells(grid: Sequence[int]) -> str:
    return " x ".join(map(str, grid))
