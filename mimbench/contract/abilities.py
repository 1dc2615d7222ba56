"""What encoders can do, and what methods and tasks need of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType

from mimbench.contract.encoder import Encoder
from mimbench.errors import InputError, nearest
from mimbench.text import list_first

ABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "mask-tokens": "encode tokens that a method has changed, such as mask tokens",
        "separate-patches": "embed each patch from its own pixels only",
        "normed-tokens": "embed patches as tokens that a layer norm has normalised",
        "one-grid": "keep the grid of its patches up to the last map",
        "visible-only": "drop masked patches",
        "late-tokens": "let mask tokens join in its last blocks",
        "visible-cells": "drop the masked cells of its last map",
        "mixed-images": "keep the tokens of two mixed images apart",
        "class-token": "output a class token",
        "pyramid": "output maps at several strides",
        "sparse-convolution": "convolve visible cells only (mimbench.api.visible_only)",
        "clips": "take clips of several frames",
        "response-norm": "normalise responses over each map (option grn of convnext)",
        "any-size": "take images of other sizes than input.image_size",
        "drop-path": "drop paths at random (an option drop_path)",
        "windows": "attend within windows",
        "relative-positions": "add relative positions for windows",
        "attention": "return its attention weights",
        "further-blocks": "run further blocks of the same form",
        "block-input": "output what its first block gets",
        "mlp-outputs": "return the outputs of the MLPs in its blocks",
        "grad-checkpointing": "recompute activations (gradient checkpointing)",
    }
)
"""Name of an ability -> what follows "an encoder that can". `Encoder.can`, and `encoder_needs` of a method or task, are
sets of these names."""


def describe_needs(names: Set[str]) -> str:
    """Abilities in words, in the order of `ABILITIES`: "drop masked patches and output a class token"."""
    return " and ".join(text for name, text in ABILITIES.items() if name in names)


def find_unknown_ability(names: Set[str]) -> str | None:
    """A name that is no ability, with the nearest one, as part of a message; None if all are known."""
    unknown = sorted(names - set(ABILITIES))
    if not unknown:
        return None
    return f"{unknown[0]!r} is not an ability of encoders{nearest(unknown[0], ABILITIES)}"


def require_abilities(
    who: str, needs: Set[str], encoder: Encoder, *, name: str = "", others: Sequence[str] = ()
) -> None:
    """Check that an encoder can do what a method or task needs.

    Args:
        who: the method or task, as messages name it.
        needs: names from `ABILITIES`.
        encoder: may be one without weights.
        name: the encoder, as messages name it. Default: its kind.
        others: names of encoders that can do it.

    Raises:
        InputError: it cannot.
    """
    missing = needs - encoder.can
    if not missing:
        return
    known = f"; these can: {list_first(others, 8)}" if others else ""
    raise InputError(
        f"{who} needs an encoder that can {describe_needs(missing)}; {name or f'this {encoder.kind}'} cannot{known}"
    )
