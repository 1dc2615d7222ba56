"""What the commands' options have in common."""

from __future__ import annotations

from typing import Any

from mimbench.errors import InputError

SEEDS = "whole numbers from 0 to 2^32 - 1"


def names(text: str) -> list[str]:
    """ "a, b,a" -> ["a", "b"]."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def seeds(text: str) -> list[int]:
    """Raises InputError for anything but SEEDS, comma-separated."""
    try:
        found = [int(seed) for seed in names(text)]
    except ValueError:
        found = []
    if not are_seeds(found):
        raise InputError(f"--seeds {text!r}: seeds are {SEEDS}, comma-separated, such as 0,1,2")
    return found


def are_seeds(value: Any) -> bool:
    """Whether it is a list of one or more seeds."""
    return isinstance(value, list) and value != [] and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
