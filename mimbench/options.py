"""Options of the command line as values: names and seeds, comma-separated, labels, and durations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mimbench.errors import InputError

LONGEST_DURATION = 366 * 86_400
"""Seconds."""
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
SEEDS = "whole numbers from 0 to 2^32 - 1"


def split_names(text: str) -> list[str]:
    """ "a, b,a" -> ["a", "b"]."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def parse_labels(assignments: Iterable[str]) -> dict[str, str]:
    """{method: label} of assignments METHOD=LABEL.

    Raises:
        InputError: one without a method or a label.
    """
    labels = {}
    for text in assignments:
        method, _, label = (part.strip() for part in text.partition("="))
        if not (method and label):
            raise InputError(f"--label {text!r} is not METHOD=LABEL, as in simmim=Ours")
        labels[method] = label
    return labels


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


def parse_duration(text: str, option: str) -> float:
    """Seconds of "3h30m", "90m", "45s" or "1d12h".

    Args:
        option: its name for messages, such as "--time-limit".

    Raises:
        InputError: something else, or nothing.
    """
    match = _DURATION.fullmatch(text.strip())
    parts = [int(part or 0) for part in match.groups()] if match else []
    seconds = sum(part * unit for part, unit in zip(parts, (86_400, 3_600, 60, 1), strict=True)) if parts else 0
    if not 0 < seconds <= LONGEST_DURATION:
        raise InputError(f"{option} {text!r}: write days, hours, minutes and seconds as in 3h30m, 90m or 1d12h")
    return float(seconds)


def are_seeds(value: Any) -> bool:
    """Whether `value` is a list of one or more seeds."""
    return isinstance(value, list) and value != [] and all(type(seed) is int and 0 <= seed < 2**32 for seed in value)
