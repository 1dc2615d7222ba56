"""Encoders by their usual names, and the options of an encoder that follow from the tensors of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from mimbench.convert.file_tensors import FileTensors, rename_tensors
from mimbench.convert.key_layouts import KeyLayout
from mimbench.encoders.blocks import sincos_positions
from mimbench.encoders.position_tables import TABLE
from mimbench.errors import InputError, nearest

Options = dict[str, Any]
_IMAGE_SIZE = 224
"""px. ConvNets and ViTs with rotary positions take any size, so their tensors do not determine it."""


def _vit(width: int, depth: int, heads: int) -> tuple[str, Options]:
    return "vit", {"embed_dim": width, "depth": depth, "num_heads": heads}


def _swin(width: int, third: int, heads: int) -> tuple[str, Options]:
    doubled = [heads * 2**stage for stage in range(4)]
    return "swin", {"embed_dim": width, "depths": [2, 2, third, 2], "num_heads": doubled}


def _convnext(width: int, third: int, other: int = 3) -> tuple[str, Options]:
    return "convnext", {"dims": [width * 2**stage for stage in range(4)], "depths": [other, other, third, other]}


def _resnet(block: str, *depths: int) -> tuple[str, Options]:
    return "resnet", {"block": block, "depths": list(depths)}


SIZES: dict[str, tuple[str, Options]] = {
    "vit-tiny": _vit(192, 12, 3),
    "vit-small": _vit(384, 12, 6),
    "vit-base": _vit(768, 12, 12),
    "vit-large": _vit(1024, 24, 16),
    "vit-huge": _vit(1280, 32, 16),
    "swin-tiny": _swin(96, 6, 3),
    "swin-small": _swin(96, 18, 3),
    "swin-base": _swin(128, 18, 4),
    "swin-large": _swin(192, 18, 6),
    "convnext-atto": _convnext(40, 6, 2),
    "convnext-femto": _convnext(48, 6, 2),
    "convnext-pico": _convnext(64, 6, 2),
    "convnext-nano": _convnext(80, 8, 2),
    "convnext-tiny": _convnext(96, 9),
    "convnext-small": _convnext(96, 27),
    "convnext-base": _convnext(128, 27),
    "convnext-large": _convnext(192, 27),
    "convnext-huge": _convnext(352, 27),
    "resnet-18": _resnet("basic", 2, 2, 2, 2),
    "resnet-34": _resnet("basic", 3, 4, 6, 3),
    "resnet-50": _resnet("bottleneck", 3, 4, 6, 3),
    "resnet-101": _resnet("bottleneck", 3, 4, 23, 3),
}
"""Name -> plugin and its options. All other options follow from the tensors of the file."""


@dataclass(frozen=True)
class EncoderDescription:
    """An encoder for a file: the plugin, its options, and the images that it takes."""

    encoder: str
    options: Options
    image_size: int
    channels: int


def describe_encoder(state: Mapping[str, Tensor], layout: KeyLayout, size: str) -> EncoderDescription:
    """The encoder called `size`, with position embeddings, patch, window, MLP and LayerScale as the file has them.

    Raises:
        InputError: an unknown size, or one of another kind than the file's.
    """
    if size not in SIZES:
        raise InputError(f"unknown encoder size {size!r}{nearest(size, SIZES)}")
    encoder, options = SIZES[size]
    kinds = {"vit": "vit", "swin": "swin"}
    if kinds.get(encoder, "convnet") != layout.kind:
        raise InputError(f"the file is of layout {layout.name}, a {layout.kind}; --encoder {size} is not")
    tensors = rename_tensors(state, layout)
    details, image_size = _DETAILS[layout.kind](tensors)
    return EncoderDescription(encoder, options | details | dict(layout.options), image_size, channels_of(tensors))


def channels_of(tensors: FileTensors) -> int:
    """Channels of the images that the first convolution takes."""
    return _tensor(tensors, "patch_embed.proj.weight", "stem.0.weight", "conv1.weight").shape[1]


def _vit_options(tensors: FileTensors) -> tuple[Options, int]:
    patch = _tensor(tensors, "patch_embed.proj.weight")
    width, side = patch.shape[0], patch.shape[-1]
    hidden = _tensor(tensors, "blocks.0.mlp.fc1.weight").shape[0]
    scaled = any(name.startswith(("blocks.0.gamma_1", "blocks.0.ls1")) for name in tensors.tensors)
    options: Options = {"patch_size": side, "mlp_ratio": hidden / width, "layer_scale": 0.1 if scaled else None}
    tables = [tensor.value for name, tensor in tensors.tensors.items() if name.endswith(TABLE)]
    if tables:
        grid = (isqrt(len(tables[0]) - 3) + 1) // 2
        is_shared = all(torch.equal(table, tables[0]) for table in tables)
        return options | {"position": "relative" if is_shared else "relative-per-block"}, grid * side
    if "pos_embed" not in tensors.tensors and "reg_token" in tensors.tensors:  # rotary positions take any size
        return options | {"registers": _tensor(tensors, "reg_token").shape[1]}, _IMAGE_SIZE
    positions = _tensor(tensors, "pos_embed")
    class_tokens = tensors.tensors["cls_token"].value.shape[1] if "cls_token" in tensors.tensors else 0
    grid = isqrt(positions.shape[1] - class_tokens)
    options |= {"class_token": False} if not class_tokens else {}
    options |= {"class_tokens": class_tokens} if class_tokens > 1 else {}
    return options | {"position": _kind_of_positions(positions, grid)}, grid * side


def _kind_of_positions(positions: Tensor, grid: int) -> str:
    prefix = positions.shape[1] - grid * grid  # of the class tokens, which have zeros in a fixed table
    if positions.shape[-1] % 4 == 0 and not positions[:, :prefix].any():
        for kind, rows_first in (("sincos", False), ("sincos-rows-first", True)):
            table = sincos_positions((grid, grid), positions.shape[-1], rows_first=rows_first)[:, 1:]
            if torch.allclose(positions[:, prefix:].float(), table, atol=1e-5):
                return kind
    return "learned"


def _swin_options(tensors: FileTensors) -> tuple[Options, int]:
    """Swin's options and its image size.

    Absolute positions show the size. Without them: if the grid of the last stage is smaller than the window, the table
    of that stage has the size of the grid. Else the last stage is one window, as in the official configurations.
    """
    side = _tensor(tensors, "patch_embed.proj.weight").shape[-1]
    tables = {name: tensor.value for name, tensor in tensors.tensors.items() if name.endswith(TABLE)}
    windows = {int(name.split(".")[1]): (isqrt(len(table)) + 1) // 2 for name, table in tables.items()}
    if not windows:
        raise InputError("the file has no relative-position tables, which every Swin has")
    last = max(windows)
    first = _tensor(tensors, "layers.0.blocks.0.mlp.fc1.weight")
    options = {"patch_size": side, "window": max(windows.values()), "mlp_ratio": first.shape[0] / first.shape[1]}
    if "absolute_pos_embed" not in tensors.tensors:
        return options, windows[last] * side * 2**last
    positions = tensors.tensors["absolute_pos_embed"].value
    grid = isqrt(positions.shape[1])
    if _kind_of_positions(positions, grid) != "sincos":
        raise InputError("the file has learned absolute positions (absolute_pos_embed), which mimbench's Swin has not")
    return options | {"position": "sincos-and-relative"}, grid * side


def _convnet_options(tensors: FileTensors) -> tuple[Options, int]:
    if "stages.0.blocks.0.conv_dw.weight" not in tensors.tensors:
        return {}, _IMAGE_SIZE  # a ResNet
    options: Options = {"patch_size": _tensor(tensors, "stem.0.weight").shape[-1]}
    options |= {"grn": "stages.0.blocks.0.mlp.grn.weight" in tensors.tensors}
    options |= {} if "stages.0.blocks.0.gamma" in tensors.tensors else {"layer_scale": None}
    return options, _IMAGE_SIZE


_DETAILS = {"vit": _vit_options, "swin": _swin_options, "convnet": _convnet_options}


def _tensor(tensors: FileTensors, *names: str) -> Tensor:
    for name in names:
        if name in tensors.tensors:
            return tensors.tensors[name].value
    raise InputError(f"the file has no {names[0]!r}, which its layout needs")
