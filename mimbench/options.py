"""Comma-separated options: names and seeds."""

from __future__ import annotations

from typing import Any

from mimbench.errors import InputError

SEEDS = "whole numbers from 0 to 2^32 - 1"


def split_names(text: str) -> list[str]:
    """ "a, b,a" -> ["a", "b"]."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_seeds(text: str) -> list[int]:
    """Comma-separated seeds.

    Raises:
        InputError: something else than SEEDS.
    """
    try:
        values = [int(seed) for seed in split_names(text)]
    except ValueError:
        values = []
    if not are_seeds(values):
        raise InputError(f"--seeds {text!r}: seeds are {SEEDS}, comma-separated, such as 0,1,2")
    return values


def are_seeds(value: Any) -> bool:
    """Whether `value` is a list of one or more seeds."""
    return isinstance(value, list) and value != [] and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
