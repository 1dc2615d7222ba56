"""A transformer with rotary positions that reads the visible patches and predicts at others (CAPI)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimbench.compute.blocks import mark_blocks
from mimbench.encoders.rope import edge_rotary_table
from mimbench.encoders.rotary_cross import RotaryCrossBlock
from mimbench.errors import InputError
from mimbench.masks import Grid


class RotaryPredictor(nn.Module):
    """Predict tokens at chosen cells of a grid through cross-attention (CAPI, arXiv:2502.08769).

    A cell to predict is a learned mask token. It reads the context and not other such cells. Positions are rotations of
    queries and keys, `edge_rotary_table`, in which prefix tokens lie on the edges of the visible patches. Norms are
    RMSNorms, no layer has a bias, and the final norm has no weights. Initial weights are torch's; apply `init_xavier`.

    Attributes:
        mask_token: [1, 1, dim].
    """

    def __init__(
        self,
        context_dim: int,
        *,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        """Build the predictor.

        Args:
            context_dim: channels of the context tokens.
            drop_path: rate of every block.

        Raises:
            InputError: `num_heads` does not divide `dim`, or a head's channels are no multiple of 4.
        """
        super().__init__()
        if dim % num_heads or dim // num_heads % 4:
            raise InputError(
                f"a predictor of {dim} channels and {num_heads} heads: rotary positions need heads whose channels are "
                f"a multiple of 4; choose a multiple of {4 * num_heads} channels"
            )
        self.head_dim = dim // num_heads
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(
            RotaryCrossBlock(dim, context_dim, num_heads, mlp_ratio, drop_path) for _ in range(depth)
        )
        mark_blocks(self.blocks)
        self.norm = nn.RMSNorm(dim, eps=1e-5, elementwise_affine=False)

    def forward(self, context: Tensor, cells: Tensor, targets: Tensor, grid: Grid) -> Tensor:
        """Predict the tokens at `targets`.

        Args:
            context: [B, P + K, context_dim], as the encoder gives it: P prefix tokens, and the tokens of K cells.
            cells: row-major indices of those K cells, int64 [B, K].
            targets: row-major indices of T cells to predict, int64 [B, T].
            grid: (Gh, Gw), of which the cells are.

        Returns:
            [B, T, dim].
        """
        table = edge_rotary_table(grid, self.head_dim, keep=targets)
        context_table = edge_rotary_table(grid, self.head_dim, context.shape[1] - cells.shape[1], cells)
        # Contiguous, as the output of a block is: so one compiled graph serves the first block too.
        x = self.mask_token.expand(*targets.shape, -1).contiguous()
        for block in self.blocks:
            x = block(x, context, table, context_table)
        return self.norm(x)
