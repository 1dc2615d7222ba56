"""Weights of a trained VQ-KD under its official names."""

from __future__ import annotations

from pathlib import Path

from mimbench.api import InputError, read_weights, to_part
from mimbench_methods.tokenizers.vqkd_network import WordEncoder

OFFICIAL_NAMES = {
    "encoder.": "encoder.body.",
    "encode_task_layer.": "to_code.",
    "quantize.embedding.weight": "quantizer.codes",
    "quantize.embedding.initted": "quantizer.is_started",
    "quantize.embedding.cluster_size": None,
    "quantize.embedding.embed_avg": None,
    "quantize.cluster_size": "quantizer.usage",
}
"""Beginnings of official names of the part that makes words -> here. None: nothing reads it."""
_MAKES_WORDS = ("encoder.", "encode_task_layer.", "quantize.")


def load_words(path: Path, words: WordEncoder) -> None:
    """Give `words` the weights of a file with the official names.

    Raises:
        InputError: the file cannot be read, or its sizes are others.
    """
    place = "method.vqkd.weights"
    target = words.state_dict()
    try:
        state = {name: value for name, value in read_weights(path).state.items() if name.startswith(_MAKES_WORDS)}
        placed = to_part(state, target, OFFICIAL_NAMES)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    trouble = next((why for why in placed.left_out.values() if "as a whole" in why), "")
    missing = sorted(set(target) - set(placed.state) - {"quantizer.usage", "quantizer.is_started"})
    if trouble or missing:
        what = trouble.partition("since ")[2] or f"it has no {missing[0]!r}"
        raise InputError(f"{place}: {path} does not fit ({what}); set the sizes in [method.vqkd] to the file's")
    words.load_state_dict(placed.state, strict=False)
