"""What dense tasks that fine-tune an encoder share: how it is arranged for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mimbench.contract import Encoder, InputError
from mimbench.convert import resized
from mimbench.encoders.rebuild import rebuilt
from mimbench.encoders.resample import TABLE

STARTING_FROM = {
    "relative-per-block": ("relative", "relative-per-block"),
    "learned": ("sincos", "learned"),
    "learned-and-relative": ("sincos", "learned", "learned-and-relative"),
}
"""A ViT's positions while it is fine-tuned -> the pretrained positions that they can start from."""


def arranged(
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
    """`encoder`, or where its options change a copy with its weights, its attention as a dense task wants it.

    Windows, and relative positions for images of that side, px, are for encoders with one map; others keep what
    they have. An attention dropout of pretraining is turned off.

    Args:
        train_positions: train fixed absolute positions as well.
        image_size: side that position tables are resampled to, px; None: none are.
        options: more options of the encoder's Config; None keeps the value of the pretraining.

    Raises:
        InputError: the encoder has no such thing, or no such block.
    """
    changes = {name: value for name, value in {"drop_path": drop_path, **options}.items() if value is not None}
    if getattr(encoder.config, "attention_dropout", 0):
        changes["attention_dropout"] = 0.0
    if train_positions and getattr(encoder.config, "position", None) == "sincos":
        changes["position"] = "learned"
    check_position(changes.get("position"), encoder)
    encoder = _changed(encoder, image_size, changes)
    if len(encoder.pyramid_strides) == 1:
        if window:
            encoder.use_windows(window, tuple(global_blocks))
        if relative_positions:
            encoder.add_relative_positions(relative_positions)
    if grad_checkpointing:
        encoder.set_grad_checkpointing()
    return encoder


def check_position(position: str | None, encoder: Encoder) -> None:
    """Raise InputError if the encoder's positions cannot initialise those of `task.position`."""
    own = getattr(encoder.config, "position", None)
    if position is None or own is None or own in STARTING_FROM[position]:
        return
    fitting = [name for name, starts in STARTING_FROM.items() if own in starts]
    raise InputError(
        f'task.position "{position}" starts from {_kind(STARTING_FROM[position])} positions, and the encoder has '
        f'{_kind([own])} ones ("{own}"); use "{fitting[0]}", or leave it out'
    )


def weightless(encoder: Encoder) -> Encoder:
    """The like of `encoder` on the meta device, where the largest takes no memory and no time: to try options on."""
    with torch.device("meta"):
        return rebuilt(encoder)


def _changed(encoder: Encoder, image_size: int | None, changes: dict[str, Any]) -> Encoder:
    """A copy of `encoder` with other options, its weights resampled to them; what is new starts as the encoder has it.

    New are position tables (zero) and LayerScale. Nothing is drawn from the global generator.
    """
    known = type(encoder.config).model_fields
    if not image_size and not any(value or name in known for name, value in changes.items()):
        return encoder
    with torch.random.fork_rng(devices=[]), next(encoder.parameters()).device:
        made = rebuilt(encoder, image_size=image_size, **changes)
    state = resized(encoder.state_dict(), made)
    added = {name for name in made.state_dict().keys() - state.keys() if name.endswith((TABLE, "gamma"))}
    made.load_state_dict(state | {name: made.state_dict()[name] for name in added})
    return made


def _kind(positions: Sequence[str]) -> str:
    return "relative" if positions[0].startswith("relative") else "absolute"
