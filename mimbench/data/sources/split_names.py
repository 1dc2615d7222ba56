"""Words by which files and folders name the split that they belong to."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePath

TRAIN = ("train", "training")
TEST = ("val", "valid", "validation", "test", "testing")
"""The first one that there is names the split to evaluate on."""


def first_of(words: Collection[str], names: Collection[str | None]) -> str | None:
    """The first one of `words` that is among `names`."""
    return next((word for word in words if word in names), None)


def split_word(path: PurePath) -> str | None:
    """The word of TRAIN or TEST in the file's name, or else in the nearest folder that has one; None: no such word.

    Names are taken apart at all signs that are no letters, and "trainset" is read as "train". One with words of both
    kinds says nothing.

    Args:
        path: relative to the root of the data.
    """
    for part in reversed(path.parts):
        words = [word.removesuffix("set") for word in re.findall("[a-z]+", part.lower())]
        matches = [word for known in (TRAIN, TEST) if (word := first_of(known, words))]
        if len(matches) == 1:
            return matches[0]
    return None
