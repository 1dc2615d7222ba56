"""Images by text files that list them with their labels, as VTAB-1k's copies have them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from mimbench.contract import DataConfig, Dataset, InputError, SplitName
from mimbench.data.sources.folder import FolderSplit
from mimbench.data.sources.root import require_root
from mimbench.text import printable
from mimbench.text_files import read_text

_OF_CHOICE = ("fit", "validation")


class ImageListsConfig(DataConfig):
    """Names of the lists, under `root`. A line of a list is PATH LABEL, the path relative to `root`."""

    train_list: str = "train800val200.txt"
    test_list: str = "test.txt"
    fit_list: str = "train800.txt"
    """The part of the training images to fit while settings are chosen, if it is there together with
    `validation_list`."""
    validation_list: str = "val200.txt"
    """The part of the training images to choose settings on."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""


class ImageLists(Dataset):
    """Images that text files list, with labels as numbers: VTAB-1k's train800val200.txt and test.txt by default.

    If train800.txt and val200.txt are there too, the dataset has the parts "fit" and "validation" of its training
    images. Files are not opened before they are used; their sizes are part of the fingerprint.
    """

    name = "image-lists"
    Config = ImageListsConfig
    config: ImageListsConfig

    def __init__(self, config: ImageListsConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = require_root(config.root, self.name, "of the folder with the lists")
        lists = {"train": config.train_list, "test": config.test_list}
        chosen = dict(zip(_OF_CHOICE, (config.fit_list, config.validation_list), strict=True))
        if all((self.root / name).is_file() for name in chosen.values()):
            lists |= chosen
            self.parts = ("train", "test", *_OF_CHOICE)
        self._entries = {part: self._read(name) for part, name in lists.items()}
        highest = max(label for entries in self._entries.values() for _, label in entries)
        self.classes = tuple(map(str, range(highest + 1)))

    def split(self, name: SplitName) -> FolderSplit:
        paths, labels = zip(*self._entries[name], strict=True)
        return FolderSplit(
            self.root, [os.fsencode(path) for path in paths], np.array(labels), self.classes, self.channels
        )

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        lines = {
            part: sorted((path, label, (self.root / path).stat().st_size) for path, label in entries)
            for part, entries in self._entries.items()
        }
        return hashlib.sha256(repr((self.channels, sorted(lines.items()))).encode()).hexdigest()

    def _read(self, name: str) -> Sequence[tuple[str, int]]:
        """(path, label) of each line of a list."""
        path = self.root / name
        if not path.is_file():
            raise InputError(
                f"{self.name}: {printable(path)} does not exist; name the list in data.root with its option"
            )
        entries = []
        for number, line in enumerate(read_text(path).splitlines(), 1):
            image, _, label = line.strip().rpartition(" ")
            if not line.strip():
                continue
            if not image or not label.isdigit():
                raise InputError(f"{self.name}: line {number} of {printable(path)} is not PATH LABEL: {line[:80]!r}")
            entries.append((image.strip(), int(label)))
        if not entries:
            raise InputError(f"{self.name}: {printable(path)} lists no images")
        missing = [image for image, _ in entries if not (self.root / image).is_file()]
        if missing:
            raise InputError(
                f"{self.name}: {len(missing)} of the {len(entries)} images of {printable(path)} do not exist, such as "
                f"{missing[0]}; unpack them into {printable(self.root)}"
            )
        return entries
