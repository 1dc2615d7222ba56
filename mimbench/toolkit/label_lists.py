"""Lists of labelled images, such as the official 1% and 10% of ImageNet: text files with one file name per line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mimbench.contract import ImageSplit, InputError


def find_listed(split: ImageSplit, files: Sequence[Path]) -> list[np.ndarray]:
    """The positions of the images that each list names.

    A list has one name per line, with or without folders before it, as in google-research/simclr@be133b38
    imagenet_subsets/1percent.txt.

    Args:
        split: the training images. They have file names, see `ImageSplit.file_name`.
        files: the lists.

    Returns:
        Sorted positions in the split, int64, of each list.

    Raises:
        InputError: a list cannot be read, names an image twice or one that the split lacks, or has one class only.
    """
    if not files:
        return []
    names = {file: _read(file) for file in files}
    places = _places(split, {name for listed in names.values() for name in listed})
    indices = []
    for file, listed in names.items():
        missing = [name for name in listed if name not in places]
        if missing:
            raise InputError(
                f"list {file}: {len(missing)} of its {len(listed)} names are not among the training images, such as "
                f"{missing[0]}; take the list of this dataset"
            )
        positions = np.sort(np.array([places[name] for name in listed], dtype=np.int64))
        if len(split.labels[positions].unique()) < 2:
            raise InputError(f"list {file}: its images are of one class; at least two are needed")
        indices.append(positions)
    return indices


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"list {file} cannot be read: {reason}") from error
    names = [PurePosixPath(line.strip()).name for line in lines if line.strip()]
    if not names:
        raise InputError(f"list {file} names no image; write one file name per line")
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise InputError(f"list {file} names {twice} twice; remove one of the lines")
    return names


def _places(split: ImageSplit, listed: set[str]) -> dict[str, int]:
    """The position of each listed image that the split has, by its file name."""
    places: dict[str, int] = {}
    for index in range(len(split)):
        name = split.file_name(index)
        if not name:
            raise InputError(
                "task.lists: the images of this dataset have no file names; use a dataset of image files, or "
                "leave the lists out"
            )
        if name in listed:
            if name in places:
                raise InputError(f"task.lists: two training images are called {name}; rename one of them")
            places[name] = index
    return places
