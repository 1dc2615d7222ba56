"""Visible and masked patches, and where their tokens belong on the grid of all patches."""

from __future__ import annotations

from torch import Tensor

from mimbench.api import Grid, resize_mask, visible_indices


def visible_and_masked(mask: Tensor, grid: Grid, masked: int | None = None) -> tuple[Tensor, Tensor]:
    """Row-major indices of visible and of masked patches on `grid`: int64 [B, K] and [B, M].

    Args:
        mask: bool [B, Gh, Gw], with as many masked patches in each image.
        masked: M, if it is known, so that an accelerator is not synchronised.
    """
    mask = resize_mask(mask, grid)
    visible = None if masked is None else mask[0].numel() - masked
    return visible_indices(mask, visible), visible_indices(~mask, masked)


def put_at(places: Tensor, tokens: Tensor, rest: Tensor, count: int) -> Tensor:
    """Tokens [B, K, D] at the patches `places` [B, K] of `count` patches, and `rest` elsewhere: [B, count, D].

    rest: what all other patches get, [1, 1, D], or one number for all channels.
    """
    grid = rest.to(tokens.dtype).expand(len(tokens), count, tokens.shape[-1])
    return grid.scatter(1, places.unsqueeze(-1).expand_as(tokens), tokens)
