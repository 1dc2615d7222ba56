"""Labels as files hold them, numbers or names, and the classes that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mimbench.errors import InputError

UNLABELLED = "unlabelled"
"""The one class of images without labels."""
_HIGHEST = 10_000_000


def number_labels(values: Sequence[Any], where: str) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Names of the classes, and the number of each label. Labels that are numbers stay as they are.

    Args:
        values: int or str, or None if there is no label. If all are None, there is one class and no number.
        where: the folder, for messages.

    Raises:
        InputError: labels of another type or of several kinds, or numbers that are no classes.
    """
    kinds = {type(value) for value in values}
    if kinds <= {type(None)}:
        return (UNLABELLED,), {}
    if others := sorted(kind.__name__ for kind in kinds - {int, str, type(None)}):
        raise InputError(
            f"the samples under {where} have labels of the type {', '.join(others)}, and labels are whole numbers or "
            "names: name another label with data.label, or pass --set data.label=none"
        )
    if len(kinds) > 1:
        raise InputError(
            f"the samples under {where} have labels of several kinds ({_kinds(values)}): make them all numbers or all "
            "names, or pass --set data.label=none"
        )
    if kinds == {int}:
        numbers = [value for value in values if isinstance(value, int)]
        highest = max(numbers)
        if min(numbers) < 0 or highest > _HIGHEST:
            wrong = highest if highest > _HIGHEST else min(numbers)
            raise InputError(
                f"the label {wrong} under {where} is no class number: name another label with data.label, or leave "
                "that part of the data out"
            )
        return tuple(map(str, range(highest + 1))), {value: value for value in set(numbers)}
    names = tuple(sorted({value for value in values if isinstance(value, str)}))
    return names, {name: number for number, name in enumerate(names)}


def _kinds(values: Sequence[Any]) -> str:
    words = {int: "numbers", str: "names", type(None): "none"}
    return ", ".join(sorted({words[type(value)] for value in values}))
