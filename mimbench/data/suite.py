"""Several labelled datasets as one, for tasks that measure an encoder on each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimbench.contract import DataConfig, Dataset, InputError, SplitName, cosmetic
from mimbench.contract.dataset import ImageSplit
from mimbench.data.open import open_dataset
from mimbench.text import list_first
from mimbench.toml import read_toml

EMBEDDED: Mapping[str, Mapping[str, Any]] = {
    "digits": {"dataset": "digits", "group": "natural"},
    "digit-crops": {"dataset": "digit-crops", "group": "structured"},
}
"""The suite without a file: sets that need no download."""


class SuiteConfig(DataConfig):
    """Which sets the suite has."""

    sets: Path | None = cosmetic(None)
    """A TOML file with a table per set: [NAME] with `dataset` (a dataset's name), `group`, and its options, such as
    `root`. Paths are relative to the file. Absent: digits of scikit-learn, and those of `digit-scenes` cut out."""


@dataclass(frozen=True)
class SuiteMember:
    """One set of a suite."""

    dataset: Dataset
    group: str


class Suite(Dataset):
    """Sets of labelled images, each in a group. Its own splits are those of the first set.

    Attributes:
        members: sets by name, in the order of the file.
    """

    name = "suite"
    Config = SuiteConfig
    config: SuiteConfig

    def __init__(self, config: SuiteConfig, cache: Path) -> None:
        super().__init__(config, cache)
        if config.validation_share:
            raise InputError("data.validation_share is not for a suite; set it in the table of a set")
        tables: Mapping[str, Any] = read_toml(config.sets, "file of a suite") if config.sets else EMBEDDED
        if not tables:
            raise InputError(f"data.sets: {config.sets} has no sets; write a table [NAME] for each")
        self.members = {name: self._open(name, table) for name, table in tables.items()}
        self.channels = max(member.dataset.channels for member in self.members.values())
        self.notes = tuple(f"{name}: {note}" for name, member in self.members.items() for note in member.dataset.notes)

    def split(self, name: SplitName) -> ImageSplit:
        first = next(iter(self.members.values())).dataset.split(name)
        assert isinstance(first, ImageSplit)  # see `_open`
        return first

    def fingerprint(self) -> str:
        content = [(name, member.group, member.dataset.fingerprint()) for name, member in self.members.items()]
        return hashlib.sha256(repr(sorted(content)).encode()).hexdigest()

    def _open(self, name: str, table: Any) -> SuiteMember:
        where = f"{self.config.sets}: [{name}]" if self.config.sets else name
        if not isinstance(table, Mapping) or not {"dataset", "group"} <= table.keys():
            raise InputError(f"{where}: each set is a table with dataset and group")
        options = {key: value for key, value in table.items() if key not in ("dataset", "group")}
        if "root" in options and self.config.sets:
            options["root"] = str(self.config.sets.parent / Path(str(options["root"])).expanduser())
        if table["dataset"] == self.name:
            raise InputError(f"{where}: a suite cannot be a set of a suite")
        try:
            dataset = open_dataset(str(table["dataset"]), options, self.cache, where)
        except InputError as error:
            raise InputError(str(error) if where in str(error) else f"{where}: {error}") from error
        if not {"images", "labels"} <= dataset.provides or dataset.frames > 1:
            raise InputError(f"{where}: dataset {table['dataset']!r} has no labelled images; it has {_held(dataset)}")
        return SuiteMember(dataset, str(table["group"]))


def _held(dataset: Dataset) -> str:
    return list_first(sorted(dataset.provides))
