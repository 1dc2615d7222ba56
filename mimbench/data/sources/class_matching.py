"""Names of classes in two splits: which of them match."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mimbench.errors import InputError
from mimbench.text import list_first, quoted

_LISTED = 3
_EQUIVALENT = str.maketrans({**dict.fromkeys("‐‑‒–—―−", "-"), **dict.fromkeys("‘’`´", "'")})
_OVERLOOKED = "case, blanks, dashes, dots at the end or invisible characters"


def match_classes(train: Mapping[str, int], test: Mapping[str, int], train_name: str, test_name: str) -> list[str]:
    """Notes about classes that only one split has.

    train, test: images by class. train_name, test_name: what messages call the splits.

    Raises:
        InputError: the splits share no class, or a class of the one differs from a class of the other only in what is
            easily overlooked.
    """
    only_train = sorted(train.keys() - test.keys())
    only_test = sorted(test.keys() - train.keys())
    loose = {_loose(name): name for name in only_test}
    pairs = [(name, loose[_loose(name)]) for name in only_train if _loose(name) in loose]
    if pairs:
        one, other = pairs[0]
        more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
        raise InputError(
            f"class {quoted(one)} of {train_name} and class {quoted(other)} of {test_name}{more} differ only "
            f"in {_OVERLOOKED}: give the folders of one class one name"
        )
    if len(only_test) == len(test):
        raise InputError(
            f"{train_name} (class {list_names(only_train)}) and {test_name} (class {list_names(only_test)}) share no "
            "class: give the folders of one class one name in both"
        )
    notes = []
    if only_test:
        count = sum(test[name] for name in only_test)
        notes.append(
            f"{_classes(only_test)} only in {test_name}, so that no training image shows it: every prediction for "
            f"{count} of {sum(test.values())} test images is wrong"
        )
    if only_train:
        notes.append(f"{_classes(only_train)} only in {train_name}: no test image measures it")
    return notes


def similar_classes(names: Iterable[str]) -> list[str]:
    """Notes about classes of one dataset whose names differ only in what is easily overlooked."""
    names = sorted(names)
    counts = Counter(map(_loose, names))
    similar = [name for name in names if counts[_loose(name)] > 1]
    if not similar:
        return []
    return [f"classes {list_names(similar)} differ only in {_OVERLOOKED}; each counts as a separate class"]


def list_names(names: Sequence[str]) -> str:
    return list_first([quoted(name) for name in names], _LISTED)


def _classes(names: Sequence[str]) -> str:
    return f"class {list_names(names)} is" if len(names) == 1 else f"{len(names)} classes ({list_names(names)}) are"


def _loose(name: str) -> str:
    """The name without what is easily overlooked: dashes count as blanks, and dots at the end are removed."""
    compatible = unicodedata.normalize("NFKC", name).casefold().translate(_EQUIVALENT)
    shown = "".join(sign for sign in compatible if not _is_invisible(sign))
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", shown)).strip(" .")


def _is_invisible(sign: str) -> bool:
    """Whether it shows nothing: control and zero-width characters, and those that choose how another is drawn."""
    return (unicodedata.category(sign) in ("Cc", "Cf") and not sign.isspace()) or "\ufe00" <= sign <= "\ufe0f"
