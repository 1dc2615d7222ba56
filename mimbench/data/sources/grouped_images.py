"""Images with attributes, listed by a table: any table with a header, Waterbirds' and CelebA's files."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from mimbench.contract import DataConfig, Dataset, InputError, SplitName
from mimbench.data.sources.folder import FolderSplit
from mimbench.data.sources.root import require_root
from mimbench.text import list_first, printable
from mimbench.text_files import read_text

_PARTS = {"0": "train", "1": "validation", "2": "test", "val": "validation"}
"""Numbers and names of parts in Waterbirds' and CelebA's files -> part."""
_CELEBA_IMAGES, _CELEBA_VALUES, _CELEBA_PARTS = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
Row = Mapping[str, str]


class GroupedImagesConfig(DataConfig):
    """Which table is read, and which of its columns."""

    layout: Literal["table", "waterbirds", "celeba"] = "table"
    """table: a CSV file with a header. waterbirds: metadata.csv of group_DRO's archive. celeba: the text files
    list_attr_celeba.txt and list_eval_partition.txt, and the folder img_align_celeba."""
    table: str = "groups.csv"
    """Of layout "table": the CSV file in `root`. Its columns are file (path relative to `root`), label and split
    (train, validation or test), and an attribute in each further column."""
    label: str = "Blond_Hair"
    """Of layout "celeba": the attribute that is the class."""
    attributes: tuple[str, ...] = Field(default=("Male",), min_length=1)
    """Of layout "celeba": the attributes that make groups."""
    channels: Literal[1, 3] = 3
    """3: RGB. 1: grey."""


@dataclass(frozen=True)
class _Table:
    """A table as it is read, with the names of its columns."""

    rows: list[Row]
    file: str
    label: str
    split: str
    attributes: tuple[str, ...]


class GroupedImages(Dataset):
    """Images by class and attributes, such as background or group, from a table: Waterbirds, CelebA, or any folder.

    Values of a column are numbered in their order: by number if all are numbers, else by name. Parts are "train",
    "test" and, if the table has it, "validation". Files are not opened before they are used; their sizes are part of
    the fingerprint.
    """

    name = "grouped-images"
    provides = frozenset({"images", "labels", "attributes"})
    Config = GroupedImagesConfig
    config: GroupedImagesConfig

    def __init__(self, config: GroupedImagesConfig, cache: Path) -> None:
        super().__init__(config, cache)
        self.channels = config.channels
        self.root = require_root(config.root, self.name, "of the folder with the table")
        table = {"table": self._read_table, "waterbirds": self._read_waterbirds, "celeba": self._read_celeba}
        self._table = table[config.layout]()
        self._members: dict[SplitName, list[Row]] = {}
        for row in self._table.rows:
            part = _PARTS.get(row[self._table.split], row[self._table.split])
            if part not in ("train", "validation", "test"):
                raise InputError(f"{self.name}: a split is {part!r}; name it train, validation or test")
            self._members.setdefault(part, []).append(row)
        for part in ("train", "test"):
            if part not in self._members:
                raise InputError(f"{self.name}: the table has no image of the split {part!r}")
        self.parts = tuple(part for part in ("train", "test", "validation") if part in self._members)
        self.classes = self._values(self._table.label)
        self._check_files()

    def split(self, name: SplitName) -> FolderSplit:
        rows, table = self._members[name], self._table
        split = FolderSplit(
            self.root,
            [os.fsencode(row[table.file]) for row in rows],
            self._numbers(table.label, rows),
            self.classes,
            self.channels,
        )
        split.attributes = {column: torch.from_numpy(self._numbers(column, rows)) for column in table.attributes}
        return split

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        table = self._table
        columns = (table.file, table.label, *table.attributes)
        lines = {
            part: sorted(
                (*(row[column] for column in columns), (self.root / row[table.file]).stat().st_size) for row in rows
            )
            for part, rows in self._members.items()
        }
        return hashlib.sha256(repr((self.channels, columns[1:], sorted(lines.items()))).encode()).hexdigest()

    def _values(self, column: str) -> tuple[str, ...]:
        values = {row[column] for row in self._table.rows}
        try:
            return tuple(sorted(values, key=lambda value: (int(value), value)))
        except ValueError:
            return tuple(sorted(values))

    def _numbers(self, column: str, rows: Iterable[Row]) -> np.ndarray:
        """The number of each row's value, int64 [N]."""
        places = {value: number for number, value in enumerate(self._values(column))}
        return np.array([places[row[column]] for row in rows], np.int64)

    def _check_files(self) -> None:
        files = [row[self._table.file] for row in self._table.rows]
        paths = Counter(os.path.normpath(file) for file in files)
        repeated = [path for path, count in paths.items() if count > 1]
        if repeated:
            raise InputError(
                f"{self.name}: the table lists {len(repeated)} images more than once, such as "
                f"{printable(repeated[0])}; leave one line of each, so that no image is in two splits"
            )
        missing = [file for file in files if not (self.root / file).is_file()]
        if missing:
            raise InputError(
                f"{self.name}: {len(missing)} of the {len(files)} images of the table do not exist, such as "
                f"{printable(missing[0])}; unpack them into {printable(self.root)}"
            )

    def _read_table(self) -> _Table:
        rows = self._read_csv(self.config.table, ("file", "label", "split"))
        further = tuple(name for name in rows[0] if name not in ("file", "label", "split"))
        if not further:
            raise InputError(
                f"{self.name}: {self.config.table} has no column of an attribute; add one, such as background"
            )
        return _Table(rows, "file", "label", "split", further)

    def _read_waterbirds(self) -> _Table:
        """metadata.csv of kohpangwei/group_DRO@cbbc1c5: img_filename, y, split 0, 1 or 2, and place."""
        rows = self._read_csv("metadata.csv", ("img_filename", "y", "split", "place"))
        return _Table(rows, "img_filename", "y", "split", ("place",))

    def _read_celeba(self) -> _Table:
        """Text files of columns: a count, a header and 1 or -1 per attribute; and the part of each image."""
        parts: dict[str, str] = {}
        for number, line in enumerate(self._lines(_CELEBA_PARTS), 1):
            words = line.split()
            if len(words) < 2:
                raise InputError(
                    f"{self.name}: line {number} of {_CELEBA_PARTS} has no split: {line[:80]!r}; "
                    "write file and 0, 1 or 2"
                )
            if words[0] in parts:
                raise InputError(
                    f"{self.name}: {_CELEBA_PARTS} lists {words[0]!r} more than once; leave one line of it"
                )
            parts[words[0]] = words[1]
        _, header, *lines = self._lines(_CELEBA_VALUES)
        names, read = header.split(), (self.config.label, *self.config.attributes)
        for name in read:
            if name not in names:
                raise InputError(
                    f"{self.name}: {_CELEBA_VALUES} has no attribute {name!r}; it has {list_first(names, 8)}"
                )
        rows: list[Row] = []
        for number, line in enumerate(lines, 3):
            file, *values = line.split()
            if len(values) != len(names) or file not in parts:
                raise InputError(f"{self.name}: line {number} of {_CELEBA_VALUES} is incomplete: {line[:80]!r}")
            chosen = {name: values[names.index(name)] for name in read}
            rows.append({"file": f"{_CELEBA_IMAGES}/{file}", "split": parts[file], **chosen})
        return _Table(rows, "file", self.config.label, "split", self.config.attributes)

    def _read_csv(self, name: str, needed: Iterable[str]) -> list[Row]:
        reader = csv.DictReader(self._lines(name))
        absent = [column for column in needed if column not in (reader.fieldnames or ())]
        if absent:
            raise InputError(f"{self.name}: {name} has no column {absent[0]!r}; its first line names the columns")
        rows: list[Row] = [*reader]
        for number, row in enumerate(rows, 2):
            if None in row or any(value is None or not value.strip() for value in row.values()):
                raise InputError(f"{self.name}: line {number} of {name} has not one value per column")
        return rows

    def _lines(self, name: str) -> list[str]:
        path = self.root / name
        if not path.is_file():
            raise InputError(
                f"{self.name}: {printable(path)} does not exist; set data.layout, or data.root, to what is there"
            )
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        if len(lines) < 2:
            raise InputError(f"{self.name}: {printable(path)} lists no images")
        return lines
