"""What stands in for a dataset that this machine lacks, while a run is planned and not carried out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from mimbench import registry
from mimbench.contract import Dataset, SplitName
from mimbench.contract.validation import validate
from mimbench.errors import MissingData

_CHANNELS = 3
"""Of a dataset whose options and published numbers do not say."""


class AbsentDataset(Dataset):
    """What is known of a dataset without its files. It has no splits, and its fingerprint is of its options."""

    def __init__(self, name: str, options: Mapping[str, Any], cache: Path, where: str, reason: str) -> None:
        """A stand-in for the dataset of this name.

        Args:
            options: of the dataset.
            where: their path in the recipe, for messages.
            reason: what is missing and what to do, for messages.
        """
        cls: type[Dataset] = registry.datasets.load(name)
        super().__init__(validate(cls.Config, dict(options), where), cache)
        sizes = cls.published_sizes(self.config.model_copy(update={"root": None}))
        self.name, self.provides, self.reason = name, cls.provides, reason  # type: ignore[misc]
        self.channels = getattr(self.config, "channels", sizes.channels if sizes else _CHANNELS)
        self.frames = getattr(self.config, "frames", cls.frames)

    def fingerprint(self) -> str:
        options = {name: value for name, value in self.config if not self.config.is_cosmetic(name)}
        return hashlib.sha256(f"absent: {self.name} {options!r}".encode()).hexdigest()

    def split(self, name: SplitName) -> NoReturn:
        """Raises MissingData."""
        raise MissingData(self.reason)


def is_here(dataset: Dataset) -> bool:
    """Whether the files of a planned dataset are on this machine."""
    return not isinstance(dataset, AbsentDataset)
