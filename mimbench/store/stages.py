"""What methods fitted before training (tokenizers): weights, and a card with their hash.

DIR/stages/<fingerprint>.safetensors, and .json: what it is, and its hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimbench.errors import InputError
from mimbench.files import file_sha256, write_atomic
from mimbench.store.sealing import DAMAGE, damage_in_words, fingerprint, is_sealed, seal_card, write_json

_ADVICE = "delete both files to fit it again"


def card_of(weights: Path) -> Path:
    return weights.with_suffix(".json")


def write_stage(weights: Path, content: bytes, what: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write the weights first: a fitted state counts as complete once its card is there."""
    write_atomic(weights, content)
    card = {"what": dict(what), "sha256": file_sha256(weights), "provenance": dict(provenance)}
    write_json(card_of(weights), seal_card(card))


def check_stage(weights: Path) -> None:
    """Check weights and card against their hashes.

    Raises:
        InputError: one is damaged, or the card is that of another fingerprint.
    """
    card = card_of(weights)
    try:
        body = json.loads(card.read_text(encoding="utf-8"))
        is_intact = is_sealed(body)
        is_named = fingerprint(body["what"]) == weights.stem
        is_whole = body["sha256"] == file_sha256(weights)
    except DAMAGE as error:
        raise InputError(f"{weights} or its card {card.name} {damage_in_words(error, _ADVICE)}") from error
    if not is_intact:
        raise InputError(f"{card} is corrupt: it does not match its own hash; {_ADVICE}")
    if not is_named:
        raise InputError(f"{card} describes another state than its file name says; {_ADVICE}")
    if not is_whole:
        raise InputError(f"{weights} is corrupt: its sha256 is not the one noted in {card.name}; {_ADVICE}")
