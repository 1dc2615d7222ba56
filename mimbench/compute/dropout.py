"""Dropout that draws for all images of a batch that processes share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mimbench.shared_batch import current_share, draw_rows


class SharedDropout(nn.Dropout):
    """torch's Dropout; in a shared batch, a step on several processes drops what a single process would."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or current_share() is None:
            return super().forward(x)
        return x * draw_rows(lambda rows: F.dropout(x.new_ones(rows, *x.shape[1:]), self.p), len(x))


class SharedDropout2d(nn.Dropout2d):
    """torch's Dropout2d, which drops whole channels of [B, C, H, W]; shared as `SharedDropout`."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p or current_share() is None:
            return super().forward(x)
        return x * draw_rows(lambda rows: F.dropout2d(x.new_ones(rows, x.shape[1], 1, 1), self.p), len(x))


def share_dropout(module: nn.Module) -> None:
    """Let each Dropout and Dropout2d within `module` draw for all images of a batch that processes share.

    Attention dropout that a fused kernel draws is no such module's work, and stays as it is.
    """
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.__class__ = SharedDropout
        elif type(part) is nn.Dropout2d:
            part.__class__ = SharedDropout2d
