"""Class names from a list in a dataset's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from mimbench.errors import InputError
from mimbench.text import printable, quoted
from mimbench.text_files import read_text


def class_names(root: Path) -> tuple[str, ...]:
    """The names in root/classes.txt or root/objectInfo150.txt, in order; () if there is neither.

    Raises:
        InputError: the list cannot be read, or a name occurs twice.
    """
    for name, read in _READERS.items():
        path = root / name
        if path.is_file():
            lines = [line.strip() for line in read_text(path).splitlines()]
            try:
                names = read([line for line in lines if line])
            except IndexError as error:
                raise InputError(
                    f"cannot read class names from {printable(path)}: a line has fewer than 6 columns"
                ) from error
            if names and Counter(names).most_common(1)[0][1] > 1:
                twice = Counter(names).most_common(1)[0][0]
                raise InputError(f"{printable(path)} names the class {quoted(twice)} twice; names must be unique")
            return tuple(names)
    return ()


_READERS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "classes.txt": lambda lines: lines,
    # Idx, Ratio, Train, Val, Stuff, Name, in columns of tabs and spaces; a name may hold spaces and synonyms.
    "objectInfo150.txt": lambda lines: [line.split(None, 5)[5].split(",")[0].strip() for line in lines[1:]],
}
