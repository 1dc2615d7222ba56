"""Layers of the encoder that an option of a method chooses, and what comes after the last one."""

from __future__ import annotations

from collections.abc import Sequence

from mimbench.api import Encoder, InputError


def rising_layers(encoder: Encoder, layers: Sequence[int] | None) -> list[int]:
    """Indices from 0 of `method.layers`, of which negative ones count from the end; None: all layers.

    Raises:
        InputError: they do not rise, or the encoder lacks one of them.
    """
    indices = encoder.layer_indices(layers)
    if indices != sorted(set(indices)):
        raise InputError(f"method.layers {layers} of {encoder.num_layers} layers must rise")
    return indices


def require_layers(encoder: Encoder, option: str, count: int) -> None:
    """Raise InputError if the encoder has fewer than `count` layers; `option` is the one that asks for them."""
    if count > encoder.num_layers:
        raise InputError(f"method.{option} {count} is more than the encoder's {encoder.num_layers} layers")


def freeze_final_norm(encoder: Encoder) -> None:
    """Take what comes after the last block from the training, as no loss reaches it."""
    for name, parameter in encoder.named_parameters():
        if encoder.layer_of(name) > encoder.num_layers:
            parameter.requires_grad_(False)
