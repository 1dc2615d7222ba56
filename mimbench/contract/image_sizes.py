"""Image sizes that change over a pretraining: the option `pretrain.image_sizes`."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from mimbench.errors import InputError


def _check_order(sizes: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    if sizes and sizes[0][0] != 0:
        raise ValueError(f"the first share is {sizes[0][0]:g}; begin with [0, px], the size at first")
    for (before, size), (share, next_size) in pairwise(sizes):
        if share <= before:
            raise ValueError(f"share {share:g} follows share {before:g}; let the shares rise")
        if size == next_size:
            raise ValueError(f"{size} px follow {size} px at share {share:g}; leave out one of the pairs")
    return sizes


ImageSizes = Annotated[
    tuple[tuple[Annotated[float, Field(strict=True, ge=0, lt=1)], Annotated[int, Field(strict=True, ge=4)]], ...],
    AfterValidator(_check_order),
]
"""[share, px] pairs: from this share of the training on, images have this size. The first share is 0."""


def require_multiple(side: int, length: int, name: str) -> None:
    """Raise InputError if images of `side` px are no multiple of a length of the encoder, named for the message."""
    if side % length:
        raise InputError(f"{side} px is no multiple of the encoder's {name}, {length} px; choose another size")


def first_epochs(sizes: ImageSizes, *, steps: int, steps_per_epoch: int) -> list[tuple[int, int]]:
    """The epoch, from 0, in which each size first applies, and the size in px: sizes change only between epochs.

    A share within an epoch counts from the next epoch on.

    Args:
        sizes: as `pretrain.image_sizes`.
        steps: optimizer steps of the whole training.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        InputError: a size would never apply, since the next one begins in the same epoch, or the training ends before.
    """
    # Rounded, so that 0.7 of 10 epochs, 7.000000000000001, is epoch 7.
    firsts = [math.ceil(round(share * steps / steps_per_epoch, 6)) for share, _ in sizes]
    ends = [*firsts[1:], math.ceil(steps / steps_per_epoch)]
    for first, end, (share, size) in zip(firsts, ends, sizes, strict=True):
        if first >= end:
            raise InputError(
                f"pretrain.image_sizes: {size} px, from {share:g} of the training on, would never be used, since sizes "
                f"change only between epochs, and there are {steps / steps_per_epoch:g}; move the share, or train for "
                "more epochs"
            )
    return [(first, size) for first, (_, size) in zip(firsts, sizes, strict=True)]
