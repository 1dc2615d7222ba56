"""A narrow transformer that predicts features or pixels at masked patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mimbench.encoders.blocks import cross_blocks, sincos_positions, transformer_blocks
from mimbench.errors import InputError
from mimbench.masks import Grid


class Predictor(nn.Module):
    """Predict tokens at chosen cells of a grid, from tokens at other cells (I-JEPA's predictor, CrossMAE's decoder).

    A context token is projected to `dim` and gets the position of its cell. A cell to predict is a learned mask token
    with the position of that cell. Initial weights are torch's; apply `init_truncated` or `init_xavier` to it.

    Attributes:
        mask_token: [1, 1, dim].
        positions: fixed sin-cos positions [1, Gh * Gw, dim], not stored; None without a grid.
    """

    positions: Tensor | None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        grid: Grid | None,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        cross: bool = False,
    ) -> None:
        """Build the predictor.

        Args:
            in_dim: channels of the context tokens.
            out_dim: channels of a prediction.
            grid: (Gh, Gw) of the sin-cos positions; None: no positions, if the tokens have theirs.
            drop_path: rate of the last block; the rates rise from 0 in equal steps.
            cross: cells to predict read the context only, through cross-attention, and do not see each other. The
                context enters as it is, without projection and positions (CrossMAE).

        Raises:
            InputError: `num_heads` does not divide `dim`, or `dim` is not a multiple of 4 and there is a grid.
        """
        super().__init__()
        self.cross = cross
        self.project = nn.Identity() if cross else nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        positions = None if grid is None else sincos_positions(grid, dim)[:, 1:]
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = (
            cross_blocks(dim, in_dim, depth, num_heads, mlp_ratio, drop_path=drop_path)
            if cross
            else transformer_blocks(dim, depth, num_heads, mlp_ratio, drop_path=drop_path)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, out_dim)

    def forward(
        self, context: Tensor | Sequence[Tensor], cells: Tensor, targets: Tensor, *, with_prefix: bool = False
    ) -> Tensor:
        """Predict the tokens at `targets`.

        Args:
            context: [B, P + K, in_dim], as the encoder gives it for visible patches: P prefix tokens, which get no
                position, and the tokens of K cells. With `cross`, also one such context per block, such as features of
                different layers.
            cells: row-major indices of those K cells, int64 [B, K].
            targets: row-major indices of T cells to predict, int64 [B, T].
            with_prefix: predict at the prefix tokens, too, as MAE's decoder can. Not with `cross`.

        Returns:
            [B, T, out_dim]; with the prefix tokens, which come first, [B, P + T, out_dim].

        Raises:
            InputError: there are several contexts, and `cross` is false; or `with_prefix` and `cross` are both true.
        """
        queries = self.mask_token.expand(*targets.shape, -1) + self._positions(targets)
        if self.cross:
            if with_prefix:
                raise InputError("a predictor with cross-attention has no prefix tokens to predict at")
            contexts = [context] * len(self.blocks) if isinstance(context, Tensor) else context
            for block, tokens in zip(self.blocks, contexts, strict=True):
                queries = block(queries, tokens)
            return self.head(self.norm(queries))
        if not isinstance(context, Tensor):
            raise InputError("a predictor with self-attention takes one context; set cross=True for one per block")
        x = self.project(context)
        prefix = x.shape[1] - cells.shape[1]
        x = torch.cat((x[:, :prefix], x[:, prefix:] + self._positions(cells), queries.to(x.dtype)), 1)
        x = self.blocks(x)
        chosen = x[:, context.shape[1] :]
        return self.head(self.norm(torch.cat((x[:, :prefix], chosen), 1) if with_prefix else chosen))

    def _positions(self, cells: Tensor) -> Tensor | float:
        """[B, K] -> [B, K, dim]."""
        return 0.0 if self.positions is None else self.positions[0][cells]
