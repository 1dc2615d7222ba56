"""Position tables at another size, through timm's own resampling."""

from __future__ import annotations

import warnings
from math import isqrt
from typing import Any

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

TABLE = "relative_position_bias_table"


def resampled(encoder: nn.Module, name: str, value: Tensor, wanted: Tensor) -> Tensor | None:
    """What `value` becomes as the parameter `name` of `encoder`, which is shaped as `wanted`.

    Relative-position tables [(2h-1) * (2w-1) + extra, heads] are interpolated over distances in geometric
    progression, as SimMIM's and BEiT's fine-tuning scripts do for ViT and Swin alike (microsoft/SimMIM@d3e29bca
    utils.py, microsoft/unilm@768a3c87 beit/run_class_finetuning.py). Absolute positions
    [1, prefix + h * w, D], bicubically. None: `name` is neither, or another width, or `value` is not of a
    square grid.
    """
    path, _, leaf = name.rpartition(".")
    if value.ndim != wanted.ndim or value.shape[-1] != wanted.shape[-1]:
        return None
    owner: Any = encoder.get_submodule(path)
    if leaf == TABLE:
        height, width = owner.window_size
        extra = len(wanted) - (2 * height - 1) * (2 * width - 1)
        if not _square(len(value) - extra):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # timm's interpolator indexes in a way that torch means to change
            return resize_rel_pos_bias_table(value, (height, width), tuple(wanted.shape))
    if leaf == "pos_embed":
        rows, columns = owner.patch_embed.grid_size
        prefix = wanted.shape[1] - rows * columns
        if not _square(value.shape[1] - prefix):
            return None
        return resample_abs_pos_embed(value, new_size=[rows, columns], num_prefix_tokens=prefix)
    return None


def _square(count: int) -> bool:
    return count > 0 and isqrt(count) ** 2 == count
