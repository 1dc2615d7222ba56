"""Position embeddings of a ViT at any grid: absolute ones, relative biases, rotary tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimbench.compute.attention import dense_bias
from mimbench.contract import InputError
from mimbench.encoders.position_tables import resize_absolute
from mimbench.encoders.rope import edge_rotary_table, rotary_table, with_unrotated_prefix
from mimbench.encoders.vit_config import OWN_TABLES, ViTConfig

Grid = tuple[int, ...]
Bias = Tensor | tuple[Tensor, Tensor] | None
"""As `mimbench.compute.attention.attend` takes it; or a rotary table."""


class ViTPositions:
    """Computes what a ViT adds to its tokens and to its attention. The learned tables belong to timm's model.

    Args:
        config: the options of the ViT.
        grid: rows and columns of patches at the encoder's image size.
        prefix: number of prefix tokens.
    """

    def __init__(self, config: ViTConfig, grid: Grid, prefix: int) -> None:
        self.config, self.grid, self.prefix = config, tuple(grid), prefix
        self.relative = config.position.startswith("relative")
        self.rotary = config.position.endswith("rope")
        self._indices: dict[tuple[Grid, torch.device], Tensor] = {}

    def absolute(self, body: Any, grid: Grid) -> Tensor | None:
        """Absolute position embeddings [1, C + h*w, D] at `grid`, those of C class tokens first."""
        if self.relative or self.config.position in ("rope", "edge-rope"):
            return None
        if tuple(grid) == self.grid:
            return body.pos_embed
        prefix, shift = (
            self.config.class_tokens * self.config.class_token,
            0.1 if self.config.position_resize == "dino" else None,
        )
        return resize_absolute(body.pos_embed, self.grid, tuple(grid), prefix, shift)

    def bias(self, body: Any, grid: Grid) -> Bias:
        """Relative position bias [1, heads, N, N] over N = 1 + h*w tokens, class token first; or a rotary table.

        If the blocks' attention has the form "flex": the table and the index of its rows instead.

        A rotary table [1, 1, P + h*w, 2 * channels of a head] takes the place of the bias in each block's attention.
        At another grid than that of the encoder the shared table is resized anew in every pass, by plain bicubic
        interpolation. The official codes convert it once, as encoders/resample.py does.
        """
        if self.config.position == "edge-rope":
            return self.edge_table(body, grid, None)
        if self.rotary:
            config, device = self.config, body.patch_embed.proj.weight.device
            channels = config.embed_dim // config.num_heads
            return with_unrotated_prefix(rotary_table(grid, channels, config.rope_base, device=device), self.prefix)
        if tuple(grid) != self.grid:
            size = self.grid[-1] * self.config.patch_size
            self.require_shared_table(f"another size than {size} px")
        if self.config.position != "relative":
            return None  # there is none, or blocks have their own
        table = body.rel_pos_bias.relative_position_bias_table
        if tuple(grid) != self.grid:
            from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple

            shape = ((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, self.config.num_heads)
            table = resize_rel_pos_bias_table_simple(table, tuple(grid), shape)
        index = self._index(tuple(grid), table.device)
        return (table, index) if body.blocks[0].attn.attention_form == "flex" else dense_bias(table, index)

    def edge_table(self, body: Any, grid: Grid, keep: Tensor | None) -> Tensor:
        """Rotary table of all patches or those of `keep`, on whose edges the prefix tokens lie."""
        channels, device = self.config.embed_dim // self.config.num_heads, body.patch_embed.proj.weight.device
        return edge_rotary_table(grid, channels, self.prefix, keep, device=device)

    def patch_bias(self, body: Any, grid: Grid) -> Bias:
        """`bias` without the prefix tokens."""
        bias = self.bias(body, grid)
        if isinstance(bias, tuple):
            return bias[0], bias[1][self.prefix :, self.prefix :]
        if bias is None or self.rotary:
            return None if bias is None else bias[..., self.prefix :, :]
        return bias[..., self.prefix :, self.prefix :]

    def chosen(self, bias: Tensor | tuple[Tensor, Tensor], keep: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The rows of `bias`, and its columns if it has some per token, for the prefix and the patches of `keep`.

        keep: int64 [B, K], indices of patches.
        """
        rows = torch.cat((torch.arange(self.prefix, device=keep.device).expand(len(keep), -1), keep + self.prefix), 1)
        if isinstance(bias, tuple):
            return bias[0], bias[1][rows[:, :, None], rows[:, None, :]]
        if self.rotary:
            return bias[0, 0][rows].unsqueeze(1)
        return bias[0][:, rows[:, :, None], rows[:, None, :]].transpose(0, 1)

    def require_shared_table(self, what: str) -> None:
        """Raise InputError if each block has a separate relative-position table, which `what` cannot use."""
        position = self.config.position
        if position in OWN_TABLES:
            instead = "relative" if position == "relative-per-block" else position.removesuffix("-and-relative")
            raise InputError(f'{what} is not for encoder.position "{position}"; use "{instead}"')

    def _index(self, grid: Grid, device: torch.device) -> Tensor:
        """Row of the table for each pair of tokens, int64 [N, N]; made once per grid and device."""
        key = (grid, device)
        if key not in self._indices:
            from timm.models.beit import gen_relative_position_index

            with torch.inference_mode(False):  # an index first made in evaluation must serve training too
                index = gen_relative_position_index(grid, device=device)
            if type(index) is not Tensor:  # a fake tensor must not outlive its mode
                return index
            self._indices[key] = index
        return self._indices[key]
