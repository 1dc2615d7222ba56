"""An encoder adapted to be fine-tuned: its windows, positions, drop path and image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mimbench.contract import Encoder, InputError
from mimbench.convert import resize_positions
from mimbench.encoders.position_tables import TABLE
from mimbench.encoders.rebuilding import rebuild_encoder

STARTS = {
    "relative-per-block": ("relative", "relative-per-block"),
    "learned": ("sincos", "sincos-rows-first", "learned"),
    "learned-and-relative": ("sincos", "sincos-rows-first", "learned", "learned-and-relative"),
    "sincos-rows-first-and-relative": ("sincos-rows-first", "sincos-rows-first-and-relative"),
}
"""Position type of a fine-tuned ViT -> the pretrained position types that can initialise it."""


def adapt_encoder(
    encoder: Encoder,
    *,
    drop_path: float | None,
    window: int,
    global_blocks: Sequence[int],
    relative_positions: int | None = None,
    train_positions: bool = False,
    grad_checkpointing: bool = False,
    image_size: int | None = None,
    **options: Any,
) -> Encoder:
    """Prepare a pretrained encoder for a dense task, such as detection or segmentation.

    Windows and relative positions apply to encoders with a single feature map (a plain ViT). Encoders with several
    maps keep the attention they have. Attention dropout of the pretraining is turned off.

    Args:
        encoder: the pretrained encoder. It is changed in place unless an option needs a new one.
        drop_path: stochastic depth rate of the last block; None keeps the pretrained rate.
        window: side of the attention windows in tokens; 0 attends over the whole image.
        global_blocks: indices of the blocks that attend over the whole image although `window` is set.
        relative_positions: image side in px for which new relative positions are added, initially zero; None adds none.
        train_positions: train fixed (sine-cosine) absolute positions too.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        image_size: side in px that position tables are resampled to; None keeps them.
        options: further options of the encoder's Config; None keeps the pretrained value.

    Returns:
        `encoder` itself, or a copy with the same weights if an option of its Config changes.

    Raises:
        InputError: the encoder lacks an option or a block, or its positions cannot initialise the new ones.
    """
    changes = {name: value for name, value in {"drop_path": drop_path, **options}.items() if value is not None}
    if getattr(encoder.config, "attention_dropout", 0):
        changes["attention_dropout"] = 0.0
    if train_positions and getattr(encoder.config, "position", "").startswith("sincos"):
        changes["position"] = "learned"
    check_position(changes.get("position"), encoder)
    encoder = _copy_with(encoder, image_size, changes)
    has_one_map = len(encoder.pyramid_strides) == 1
    if has_one_map and window:
        encoder.use_windows(window, tuple(global_blocks))
    if has_one_map and relative_positions:
        encoder.add_relative_positions(relative_positions)
    if grad_checkpointing:
        encoder.set_grad_checkpointing()
    return encoder


def check_position(position: str | None, encoder: Encoder) -> None:
    """Check that the encoder's pretrained positions can initialise those of `task.position`.

    Args:
        position: a key of STARTS; None keeps the pretrained positions, which always works.

    Raises:
        InputError: they cannot; the message names a type that can be used.
    """
    pretrained = getattr(encoder.config, "position", None)
    if position is None or pretrained is None or pretrained in STARTS[position]:
        return
    possible = next((f'use "{name}", or ' for name, starts in STARTS.items() if pretrained in starts), "")
    raise InputError(
        f'task.position "{position}" starts from {_describe(STARTS[position])} positions, and the encoder has '
        f'{_describe([pretrained])} ones ("{pretrained}"); {possible}leave it out'
    )


def encoder_depends_on_processes(encoder: Encoder, attention_dropout: float = 0.0) -> str:
    """Why an encoder trains differently on another number of processes; "" if rounding alone differs.

    Args:
        encoder: as pretrained.
        attention_dropout: what it is fine-tuned with, if it has such an option.
    """
    config = encoder.config
    if hasattr(config, "attention_dropout"):
        config = config.model_copy(update={"attention_dropout": attention_dropout})
    return encoder.depends_on_processes(config)


def without_weights(encoder: Encoder) -> Encoder:
    """A copy of `encoder` on the meta device. It needs no memory and no time, so options can be tried on it."""
    with torch.device("meta"):
        return rebuild_encoder(encoder)


def _copy_with(encoder: Encoder, image_size: int | None, changes: dict[str, Any]) -> Encoder:
    """A copy of `encoder` with changed options and the same weights, resampled if the sizes differ.

    New parameters (position tables and LayerScale) start as the encoder class initialises them. The global random
    generator is not advanced.
    """
    options = type(encoder.config).model_fields
    # An option that the encoder does not have may be switched off: 0 then means what the encoder does anyway.
    if not image_size and not any(value or name in options for name, value in changes.items()):
        return encoder
    with torch.random.fork_rng(devices=[]), next(encoder.parameters()).device:
        copy = rebuild_encoder(encoder, image_size=image_size, **changes)
    copy_weights(encoder, copy)
    return copy


def copy_weights(encoder: Encoder, adapted: Encoder) -> None:
    """Give `adapted`, the same encoder with other options or for another size, the weights of `encoder`.

    Position tables are resampled. Position tables and LayerScale that `encoder` does not have stay as they are.
    """
    state = resize_positions(encoder.state_dict(), adapted)
    fresh = adapted.state_dict()
    added = {name for name in fresh.keys() - state.keys() if name.endswith((TABLE, "gamma"))}
    adapted.load_state_dict(state | {name: fresh[name] for name in added})


def _describe(positions: Sequence[str]) -> str:
    if positions[0].endswith("rope"):
        return "rotary"
    return "relative" if positions[0].startswith("relative") else "absolute"
