"""What dense tasks that fine-tune an encoder share: how it is arranged for that."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mimbench.contract import Encoder
from mimbench.encoders.rebuild import rebuilt, with_drop_path


def arranged(
    encoder: Encoder,
    *,
    drop_path: float | None,
    window: int,
    global_blocks: Sequence[int],
    relative_positions: int | None = None,
    grad_checkpointing: bool = False,
) -> Encoder:
    """`encoder`, or with `drop_path` a copy with that rate, its attention as a dense task wants it.

    Windows, and relative positions for images of that side, px, are for encoders with one map; others keep what
    they have.

    Raises:
        InputError: the encoder has no such thing, or no such block.
    """
    if drop_path is not None:
        encoder = with_drop_path(encoder, drop_path)
    if len(encoder.pyramid_strides) == 1:
        if window:
            encoder.use_windows(window, tuple(global_blocks))
        if relative_positions:
            encoder.add_relative_positions(relative_positions)
    if grad_checkpointing:
        encoder.set_grad_checkpointing()
    return encoder


def weightless(encoder: Encoder) -> Encoder:
    """The like of `encoder` on the meta device, where the largest takes no memory and no time: to try options on."""
    with torch.device("meta"):
        return rebuilt(encoder)
