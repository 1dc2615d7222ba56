"""Position tables at another size."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TABLE = "relative_position_bias_table"


def resample_positions(encoder: nn.Module, name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """What `value` becomes as the parameter `name` of `encoder`, which is shaped as `target`.

    Relative-position tables [(2h-1) * (2w-1) + extra, heads]: see `resample_table`. Absolute positions
    [1, prefix + h * w, D], bicubically. None: `name` is neither, or another width, or `value` is not of a
    square grid.
    """
    path, _, leaf = name.rpartition(".")
    if value.ndim != target.ndim or value.shape[-1] != target.shape[-1]:
        return None
    owner: Any = encoder.get_submodule(path)
    if leaf == TABLE:
        height, width = owner.window_size
        extra = len(target) - (2 * height - 1) * (2 * width - 1)
        if not _square(len(value) - extra):
            return None
        return resample_table(value, (2 * height - 1, 2 * width - 1), extra)
    if leaf in ("pos_embed", "absolute_pos_embed"):
        rows, columns = owner.patch_embed.grid_size
        prefix = target.shape[1] - rows * columns
        if not _square(value.shape[1] - prefix):
            return None
        from timm.layers import resample_abs_pos_embed  # slow to import

        return resample_abs_pos_embed(value, new_size=[rows, columns], num_prefix_tokens=prefix)
    return None


def resize_absolute(
    table: Tensor, old: tuple[int, ...], new: tuple[int, ...], prefix: int, shift: float | None
) -> Tensor:
    """Absolute positions [1, prefix + h * w, D] of the grid `old` at the grid `new`, by bicubic interpolation.

    Args:
        prefix: positions of prefix tokens, which come first and stay as they are.
        shift: None: antialiased. Else without antialiasing, and with a scale of (n + shift) / N along an axis: 0.1 in
            facebookresearch/dino@7c446df5 and bytedance/ibot@da316d82, so that n is not rounded down.
    """
    if shift is None:
        from timm.layers import resample_abs_pos_embed  # slow to import

        return resample_abs_pos_embed(table, new_size=list(new), old_size=list(old), num_prefix_tokens=prefix)
    cells = table[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2)
    scale = [(n + shift) / length for n, length in zip(new, old, strict=True)]
    cells = F.interpolate(cells, scale_factor=scale, mode="bicubic")
    return torch.cat((table[:, :prefix], cells.flatten(2).transpose(1, 2)), 1)


def resample_table(table: Tensor, size: tuple[int, int], extra: int) -> Tensor:
    """A relative-position table [s * s + extra, heads] at `size`: [size[0] * size[1] + extra, heads].

    A cubic spline through the old values, which are placed at distances in geometric progression, as SimMIM's and
    BEiT's fine-tuning scripts have it (microsoft/SimMIM@d3e29bca utils.py, microsoft/unilm@768a3c87
    beit/run_class_finetuning.py). The last `extra` rows, those of the class token, stay as they are.
    """
    from scipy.interpolate import RectBivariateSpline  # takes half a second to import

    side = isqrt(len(table) - extra)
    if table.is_meta:
        return table.new_empty(size[0] * size[1] + extra, table.shape[1])
    old = table[: side * side].detach().double().cpu().unflatten(0, (side, side)).movedim(2, 0).numpy()
    rows, columns = (_distances(side, length) for length in size)
    at_rows, at_columns = (np.arange(length) - length // 2 for length in size)
    degree = min(3, side - 1)  # three distances, of a window of two tokens, bear a parabola at most
    heads = [
        RectBivariateSpline(rows, columns, head, kx=degree, ky=degree)(at_rows, at_columns)
        if degree
        else np.full(size, head.item())
        for head in old
    ]
    new = torch.from_numpy(np.stack(heads)).movedim(0, 2).flatten(0, 1).to(table)
    return torch.cat((new, table[side * side :]))


def _distances(old: int, new: int) -> np.ndarray:
    """Where `old` values lie, symmetrically around 0, so that the outermost are as far out as those of `new`.

    Steps grow by a constant factor from 1 at the centre. The factor is bisected between 1.01 and 1.5 to 1e-6, as in
    the official scripts; a smaller table is therefore cut out of the middle.
    """
    low, high = 1.01, 1.5
    factor = low
    while high - low > 1e-6:
        factor = (low + high) / 2
        reach = (1 - factor ** (old // 2)) / (1 - factor)
        low, high = (low, factor) if reach > new // 2 else (factor, high)
    steps = np.cumsum(factor ** np.arange(old // 2))
    return np.concatenate((-steps[::-1], [0.0], steps))


def _square(count: int) -> bool:
    return count > 0 and isqrt(count) ** 2 == count
